"""Finds out what kind of project a directory holds, and writes a chansup.toml for it.

Nothing here imports or runs the project: everything is read from its sources.
"""

from chansup.project.discover import discover
from chansup.project.errors import FileExistsAlreadyError, NothingFoundError
from chansup.project.notes import notes
from chansup.project.project import Project
from chansup.project.render import render
from chansup.project.write import write

__all__ = [
    "FileExistsAlreadyError",
    "NothingFoundError",
    "Project",
    "discover",
    "notes",
    "render",
    "write",
]
