"""Paths in text that strangers may read: a file's name tells enough, where it lies too much."""

import re

# Of a Unix address up to the last slash before a colon; else to where a space ends the path.
_FOLDERS = re.compile(r"(?<=unix:)/[^:]*/|(?<![\w./:])/(?:[^/\s'\"]+/)+(?=[^/\s])")


def without_folders(text: str) -> str:
    """Return `text` with the folders of absolute paths left out: "unix:…/web.sock"."""
    return _FOLDERS.sub("…/", text)
