"""Whether a file is still the one that was made: by device and inode."""

import enum
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class Presence(enum.Enum):
    """What stands at a path."""

    OURS = enum.auto()
    MISSING = enum.auto()
    FOREIGN = enum.auto()  # something that somebody else put there, or that cannot be looked at


@dataclass(frozen=True)
class FileIdentity:
    """A file, whatever its name. Good for as long as somebody holds the file open."""

    device: int
    inode: int

    @classmethod
    def of(cls, file: str | Path | int) -> Self:
        """Return who a path or an open descriptor is; links are not followed. Raises OSError."""
        status = os.fstat(file) if isinstance(file, int) else os.lstat(file)
        return cls(status.st_dev, status.st_ino)

    def presence_at(self, path: str | Path) -> Presence:
        """Return whether this file stands at `path`."""
        try:
            found = FileIdentity.of(path)
        except (FileNotFoundError, NotADirectoryError):
            return Presence.MISSING
        except OSError:
            return Presence.FOREIGN
        return Presence.OURS if found == self else Presence.FOREIGN

    def remove_from(self, path: str | Path) -> None:
        """Remove this file from `path`; another one there, or none, is left alone."""
        if self.presence_at(path) is Presence.OURS:
            try:
                os.unlink(path)
            except OSError:  # it goes with its directory, or somebody was faster
                pass
