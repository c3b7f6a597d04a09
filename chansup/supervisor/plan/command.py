"""What one process of a pool runs, and as whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """What to run, and as whom."""

    argv: tuple[str, ...] = field(repr=False)  # may hold secrets
    program: str  # what messages call it: as the config has it, before anything was filled in
    environment: Mapping[str, str] = field(repr=False)  # may hold secrets
    directory: str
    user: str | None = None
    group: str | None = None
    umask: str | None = None
    limits: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def hides_path(self) -> bool:
        """Whether the path of the program may hold a secret that was filled in."""
        return "$" in self.program
