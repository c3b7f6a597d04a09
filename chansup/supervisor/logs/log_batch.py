"""Lines of the log on their way to stdout."""

from typing import NamedTuple


class Batch(NamedTuple):
    """Lines of one process, printed at about the same time."""

    time: float
    slot: str
    pid: int
    level: str | None  # of chansup's own messages
    text: str  # lines joined by LF: a tenth of the memory of a list of short lines
    lines: int  # 1 with LF in the text: a traceback that is to stay in one piece
    continues: bool = False  # its first line was begun together with the batch before
