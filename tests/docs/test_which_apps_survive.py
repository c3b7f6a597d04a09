"""What docs/which-apps-survive.md says of protocols holds."""

import re

from chansup.protocol.sessions import SESSIONS
from tests.docs.pages import ROOT, table

PAGE = ROOT / "docs/which-apps-survive.md"


def test_the_page_has_the_whole_table() -> None:
    said = {
        (row[0], glob) for row in table(PAGE, "protocol", "recognised by") for glob in _code(row[1])
    }
    known = {
        (one.name, glob)
        for one in SESSIONS
        for glob in (one.pattern.subprotocol, one.pattern.path, one.pattern.query)
        if glob is not None
    }
    assert said == known


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)
