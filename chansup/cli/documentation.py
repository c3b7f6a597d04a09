"""The pages of the documentation, as they were installed with this version: `chansup docs`."""

import importlib.metadata
import json
from pathlib import Path

from chansup.config.keys import listed, quoted
from chansup.errors import ChansupError

_INSTALLED = "share/doc/chansup/"  # [tool.setuptools.data-files] in pyproject.toml
_IN_A_CHECKOUT = (
    "README.md",
    "CHANGELOG.md",
    "chansup.toml.example",
    "docs/*.md",
    "docs/schemas/*.json",
    "contrib/systemd/chansup.*",
    "contrib/nginx/site.conf",
    "contrib/prometheus/*.yml",
)


class PageError(ChansupError):
    """There is no such page."""


def pages() -> dict[str, Path]:
    """Return every page by its name: "reload", "chansup.toml.example", "site.conf"…"""
    root = Path(__file__).parents[2]
    if (root / "pyproject.toml").is_file():
        found = [path for pattern in _IN_A_CHECKOUT for path in root.glob(pattern)]
    else:
        found = _installed()
    return {_name(path): path for path in sorted(found, key=lambda path: path.name.lower())}


def page(name: str) -> str:
    """Return the text of a page. Raises PageError."""
    known = pages()
    path = known.get(_name(Path(name)))
    if path is None:
        raise PageError(
            f"page {quoted(name)} does not exist: there are {listed(list(known), 'and')}"
        )
    return path.read_text(encoding="utf-8")


def title(path: Path) -> str:
    """Return what stands in the first line of a page, or what a JSON schema is of."""
    if path.suffix == ".json":
        schema = json.loads(path.read_text(encoding="utf-8"))
        return f"JSON schema of {schema['$ref'].rpartition('/')[2]}"
    with path.open(encoding="utf-8") as file:
        return file.readline().strip("#\n ")


def _installed() -> list[Path]:
    try:
        files = importlib.metadata.files("chansup") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())).resolve() for file in files if _INSTALLED in file.as_posix()]


def _name(path: Path) -> str:
    return path.stem if path.suffix == ".md" else path.name
