"""The pages of the documentation, taken apart."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
OF_THE_ROOT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PAGES = sorted([*(ROOT / page for page in OF_THE_ROOT), *ROOT.glob("docs/*.md")])

_FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*)$")
_NOTE = re.compile(r" *<!-- (?P<note>.+) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block, with the HTML comments right before it: they say what is to be done with it."""

    page: Path
    line: int
    language: str
    text: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"

    def note(self, prefix: str) -> str | None:
        """Return what follows `prefix` in one of the notes."""
        for note in self.notes:
            if note.startswith(prefix):
                return note.removeprefix(prefix).strip()
        return None


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    notes: list[str] = []
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    for number, line in lines:
        if match := _NOTE.match(line):
            notes.append(match["note"])
        elif match := _FENCE.match(line):
            inside = []
            for _, line in lines:
                if line.strip() == "```":
                    break
                inside.append(line.removeprefix(match["indent"]))
            text = "\n".join(inside) + "\n"
            found.append(Block(page, number, match["language"], text, tuple(notes)))
            notes = []
        elif line.strip():
            notes = []
    return found


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return re.sub(r"^ *```\w*\n.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", prose(page))]


def tables(page: Path) -> list[list[list[str]]]:
    """Return every table as rows of cells, the header first."""
    found: list[list[list[str]]] = []
    rows: list[list[str]] = []
    for line in [*prose(page).splitlines(), ""]:
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append([cell.strip().replace("\\|", "|") for cell in cells])
        elif rows:
            found.append([rows[0], *rows[2:]])
            rows = []
    return found


def table(page: Path, *header: str) -> list[list[str]]:
    """Return the rows of the table whose header begins with these cells."""
    for rows in tables(page):
        if rows[0][: len(header)] == list(header):
            return rows[1:]
    raise AssertionError(f"{page} has no table with the header {header}")
