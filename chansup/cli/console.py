"""Where commands print to. rich is imported when something needs it."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 400  # columns: wide enough that nothing is cut where there is no terminal


def open_console() -> "Console":
    """Return where to print to: as wide as the terminal, or as anything in a pipe."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(highlight=False, emoji=False, markup=False, width=width)
