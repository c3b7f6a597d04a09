"""Pages, docstrings and messages are plain English; `make check` says the same."""

from pathlib import Path

import pytest

from tests.docs import prose

pytestmark = pytest.mark.slow  # the interpreter makes no difference


def test_everything_is_plain() -> None:
    assert not list(map(str, prose.findings()))


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("The worker starts anew.", "again"),
        ("A file that is no socket.", "is not a"),
        ("It stops what is\nin hand.", "name the thing"),
        ("The hub goes\non.", "continues"),
        ("Never does it fail.", "subject first"),
        ("So are they.", "subject first"),
        ("long " * 21, "wrap it"),
    ],
)
def test_a_turn_is_found(
    text: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text)
    (found,) = prose.in_page(page)
    assert remedy in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "There is no hub, and it is no longer needed.",
        "It says what is wrong.",
        "Write `goes on` in code.",
        "```text\nanew\n```",
        f"| {'long ' * 21} |",
    ],
)
def test_plain_text_passes(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert not list(prose.in_page(page))
