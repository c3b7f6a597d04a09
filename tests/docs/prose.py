"""Plain English, as far as regular expressions can tell: `python -m tests.docs.prose`.

Looks at the pages, at docstrings, and at the strings of chansup, which are its messages. Prints each
turn that is not plain, and each line of prose that is too long.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import PAGES, ROOT

WIDTH = 100  # columns of prose
_HAVE = r"(?:is|are|was|were|has|have|had|does|do|did|can|may|must|will)"
TURNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), remedy)
    for pattern, remedy in (
        (r"\banew\b", 'write "again", "new" or "from the start"'),
        (r"\b(?<!there )(?:is|are|was|were) no (?!longer\b|more\b|one\b)", 'write "is not a"'),
        (r"\bwhat (?:is|are)\b(?! wrong\b)", "name the thing"),
        (r"\b(?:goes|go|went|going) on\b", 'write "continues"'),
        (r"\bwithout a word\b", 'write "silently"'),
        (r"\bmakes? no sense\b", 'write "malformed" or "invalid"'),
        (r"\bknock(?:s|ed)?\b", 'write "connects"'),
        (r"\bas good as\b", 'write "almost"'),
        (r"\bfor want of\b", 'write "lacks"'),
        (rf"\b(?:never|seldom|only then|nor) {_HAVE} (?:it|they|he|she|we|a|an|the)\b",
         "put the subject first"),
        (rf"(?:^|[.:;] )(?:so|thus) {_HAVE} (?:it|they|the)\b", "put the subject first"),
    )
)  # fmt: skip
_FENCE = re.compile(r" *```")
_COMMENT = re.compile(r" *<!--")
_CODE = re.compile(r"`[^`\n]*`")


@dataclass(frozen=True)
class Finding:
    """A line that is not plain, and how it may become so."""

    file: Path
    line: int
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.text!r}: {self.remedy}"


def lines(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page outside of its blocks and comments, with their numbers."""
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if _FENCE.match(line):
            inside = not inside
        elif not inside and not _COMMENT.match(line):
            yield number, line


def in_page(page: Path) -> Iterator[Finding]:
    """Find turns and long lines in a page."""
    previous = ""
    for number, line in lines(page):
        text = _CODE.sub("``", line)
        yield from _turns(page, number, f"{previous}{text}", len(previous))
        previous = text.rpartition(" ")[2] + " " if text.strip() else ""
        indented = re.match(r" *(?:[-*] |\d+\. )? *", line)
        breakable = " " in _CODE.sub("``", line[indented.end() if indented else 0 :]).strip()
        if len(line) > WIDTH and breakable and not line.startswith(("|", "#", "[")):
            yield Finding(page, number, line[:40] + "…", f"wrap it at {WIDTH} columns")


def in_source(file: Path) -> Iterator[Finding]:
    """Find turns in docstrings and messages."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            text = _CODE.sub("``", " ".join(node.value.split()))
            yield from _turns(file, node.lineno, text, 0)


def _turns(file: Path, number: int, text: str, known: int) -> Iterator[Finding]:
    for pattern, remedy in TURNS:
        for match in pattern.finditer(text):
            if match.end() > known:
                around = text[max(0, match.start() - 30) : match.end() + 20]
                yield Finding(file, number, around, remedy)


def findings() -> list[Finding]:
    """Return everything that is not plain."""
    pages = [found for page in PAGES for found in in_page(page)]
    sources = [
        path for path in sorted((ROOT / "chansup").rglob("*.py")) if "vendored" not in path.parts
    ]
    return pages + [found for file in sources for found in in_source(file)]


if __name__ == "__main__":
    found = findings()
    print(*found, sep="\n")
    sys.exit(bool(found))
