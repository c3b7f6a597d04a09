"""What an app says about handovers of its WebSocket, kept in the slot for the next process."""

from typing import Any

import msgspec

from chansup.carry import remainder
from chansup.carry.arena import Slot
from chansup.carry.layout import CHECKPOINT, WORD
from chansup.handover import words


class Said:
    """The newest checkpoint and the newest word of an app."""

    __slots__ = ("_checkpoint", "_slot", "word")

    def __init__(self, checkpoint: bytes | None, word: int) -> None:
        """Take what it said to other processes; `word` is a place in WORDS, plus 1, or 0."""
        self._checkpoint = checkpoint
        self.word = word
        self._slot: Slot | None = None

    @property
    def checkpoint(self) -> Any:
        """The checkpoint, bytes or str, or None."""
        return None if self._checkpoint is None else msgspec.msgpack.decode(self._checkpoint)

    def store(self, checkpoint: Any) -> None:
        """Keep a checkpoint."""
        self._checkpoint = msgspec.msgpack.encode(words.checkpoint(checkpoint))
        if self._slot is not None:
            remainder.write_checkpoint(self._slot, self._checkpoint)

    def say(self, word: int) -> None:
        """Keep a word."""
        self.word = word
        if self._slot is not None:
            self._slot.words[WORD] = word

    def keep(self, slot: Slot) -> None:
        """Write the newest of both into a slot, from now on."""
        self._slot = slot
        if self._checkpoint is not None and not slot.words[CHECKPOINT]:
            remainder.write_checkpoint(slot, self._checkpoint)
        slot.words[WORD] = self.word

    def keep_no_more(self) -> None:
        """Leave the slot alone."""
        self._slot = None
