"""The process types of a Procfile, as platforms like Heroku read it."""

import re
import shlex
import shutil
from pathlib import Path

from chansup.project import sources
from chansup.project.project import Program

_LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(\S.*)\Z")
_SHELL = re.compile(r"[$|&;<>*?`(){}~]|\\\n")


def read(directory: Path) -> dict[str, Program]:
    """Return the process types by their names; none without a Procfile."""
    found = {}
    for line in sources.text(directory / "Procfile").splitlines():
        match = _LINE.match(line.strip())
        if match:
            found[match[1]] = Program(match[1], _command(match[2]))
    return found


def _command(text: str) -> str | list[str]:
    """Return the command as chansup runs it, with a shell where the Procfile counts on one."""
    has_assignment = re.match(r"[A-Za-z_][A-Za-z0-9_]*=", text)
    if not _SHELL.search(text) and not has_assignment:
        try:
            shlex.split(text)
        except ValueError:
            pass
        else:
            return text
    is_simple = not re.search(r"[|&;]", text) and not has_assignment
    # Platforms run these lines by bash, and some count on that.
    shell = "bash" if shutil.which("bash") else "sh"
    return [shell, "-c", f"exec {text}" if is_simple else text]
