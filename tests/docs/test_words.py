"""What the docs say in passing: links, tables, names of commands, options, keys and messages."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import click
import pytest

from chansup.cli.main import chansup
from chansup.config import channels as config_channels
from chansup.config import relay, schema, structure
from chansup.protocol.counters import declared
from chansup.protocol.states import TRANSITIONS
from chansup.relay import credits, frames
from chansup.relay.frames import Kind
from chansup.relay.interface import phases
from chansup.relay.link import _CROWDED
from chansup.relay.streams import TO_INTERFACE, TO_WORKER, State
from chansup.supervisor.metrics import metrics  # declares all that are left  # noqa: F401
from tests.docs.pages import (
    PAGES,
    ROOT,
    all_blocks,
    blocks,
    inline_code,
    name,
    prose,
    table,
    tables,
)
from tests.test_map import LEVELS, children

pytestmark = pytest.mark.slow  # the interpreter makes no difference

README = ROOT / "README.md"
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
OTHERS = [
    ROOT / "examples/chat/README.md",
    ROOT / "contrib/systemd/README.md",
    ROOT / "benchmarks/README.md",
]


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall(prose(README))}
    assert {name(page) for page in PAGES} - {"README.md"} <= linked


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_the_table_of_commands() -> None:
    shown = {}
    for cell, _ in table(README, "command"):
        _, command, *arguments = cell.strip("`").split(maxsplit=2)
        shown[command] = arguments
    has = {
        command.name: [
            parameter.make_metavar(click.Context(command))
            for parameter in command.params
            if isinstance(parameter, click.Argument)
        ]
        for command in chansup.commands.values()
    }
    assert shown == has


NO_COMMANDS = {"chansup COMMAND --help"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options_exist(page: Path) -> None:
    lines = [
        line.removeprefix("$ ")
        for block in blocks(page)
        if block.language == "console"
        for line in block.text.splitlines()
        if line.startswith("$ chansup ")
    ]
    for text in [*lines, *(code for code in inline_code(page) if code.startswith("chansup "))]:
        words = re.sub(r"^chansup (-c \S+ )?", "", text).split("|")[0].split("#")[0].split()
        words = words[: words.index("--")] if "--" in words else words  # another program's
        if words[0].strip(";") not in chansup.commands:
            assert text in NO_COMMANDS or "…" in text, text
            continue
        command = chansup.commands[words[0].strip(";")]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words[1:] if word.startswith("-")} <= known, text


def test_the_table_of_states() -> None:
    rows = table(DOCS / "architecture.md", "state", "what happens")
    said = [(state.strip("`"), event, after.strip("`")) for state, event, after in rows]
    assert said == [
        (state.value, event.value, after.value) for (state, event), after in TRANSITIONS.items()
    ]


def test_the_table_of_frames() -> None:
    rows = table(DOCS / "architecture.md", "frame", "kind")
    said = {name.strip("`"): int(number) for name, number, *_ in rows}
    assert said == {name: value for name, value in vars(Kind).items() if name.isupper()}


def test_the_table_of_phases() -> None:
    rows = table(DOCS / "architecture.md", "phase", "what happens")
    said = [tuple(cell.strip("`") for cell in row) for row in rows]
    assert said == [
        (phase.name, event.name, after.name)
        for phase, course in phases.TRANSITIONS.items()
        for event, after in course.items()
    ]


@pytest.mark.parametrize(
    ("header", "course_of"), [("to the worker", TO_WORKER), ("to the interface", TO_INTERFACE)]
)
def test_the_tables_of_streams(header: str, course_of: dict[int, dict[int, int]]) -> None:
    said = {}
    for state, stays, goes_on in table(DOCS / "architecture.md", header, "stays"):
        course = dict.fromkeys(re.findall(r"`(\w+)`", stays), state)
        for kind, end, after in re.findall(r"`(\w+)`( with the end)? → `(\w+)`", goes_on):
            course[kind + end] = f"`{after}`"
        said[state] = course
    assert said == {
        f"`{_name(State, state)}`": {
            _name(Kind, kind & 0xFF) + " with the end" * (kind > 0xFF): f"`{_name(State, after)}`"
            for kind, after in course.items()
        }
        for state, course in course_of.items()
    }


def _name(numbers: type, number: int) -> str:
    return next(name for name, value in vars(numbers).items() if value == number)


def test_the_table_of_the_relay_s_modules() -> None:
    said = set()
    for names, *_ in table(DOCS / "architecture.md", "`relay/`", "does"):
        first, *others = (name.strip("`") for name in names.split(", "))
        folder = f"{first.rpartition('/')[0]}/" if "/" in first else ""
        said |= {first, *(folder + other for other in others)}
    relay_directory = ROOT / "chansup/relay"
    has = {
        str(file.relative_to(relay_directory).with_suffix(""))
        for file in relay_directory.rglob("*.py")
        if file.stem not in {"__init__", "waiters"}
    }
    assert said == has


def test_the_table_of_the_supervisor_s_rooms() -> None:
    rows = table(DOCS / "architecture.md", "room", "does")
    rooms = [room.strip("`") for room, *_ in rows]
    assert rooms == [room for level in LEVELS["supervisor"] for room in level]
    for room, _, modules in zip(rooms, rows, (row[2] for row in rows), strict=True):
        there = children(ROOT / "chansup/supervisor" / room)
        assert set(re.findall(r"`(\w+)`", modules)) <= there, room


def test_the_numbers_of_the_flow() -> None:
    text = " ".join(prose(DOCS / "architecture.md").split())
    for said in (
        f"window of {credits.WINDOW // 1024} KiB for each stream. {credits.ASSURED // 1024} KiB of that",
        f"out of {credits.SHARED // 2**20} MiB",
        f"more than {_CROWDED // 1024} KiB wait",
        f"header of {frames.HEADER_SIZE} bytes",
        f"at most {frames.MAX_PAYLOAD // 1024} KiB",
    ):
        assert said in text, said


def test_the_values_of_on_reload() -> None:
    rows = table(DOCS / "reload.md", "value", "at a reload")
    assert {row[0].strip('`"') for row in rows} == set(get_args(schema.OnReload))


def test_the_table_of_servers() -> None:
    for rows in tables(DOCS / "servers.md"):
        if rows[0][1] == "uvicorn":
            assert tuple(rows[0][1:]) == get_args(schema.Server)
            return
    raise AssertionError("no table of servers")


TABLES: dict[str, type[schema.Table]] = {"app": schema.App, "interface": schema.Interface,
          "handover": schema.HandoverRules, "rollout": schema.Rollout,
          "channel_layer": schema.ChannelLayer, "admin": schema.Admin, "log": schema.Log, "supervisor": schema.Supervisor}  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_keys_of_the_config_exist(page: Path) -> None:
    for code in inline_code(page):
        if match := re.match(r"\[(\w+)\] (\w+)", code):
            assert match[2] in structure.fields(TABLES[match[1]]), code


def test_the_defaults_that_reload_md_names() -> None:
    said = re.findall(r"^- `(\w+)` \(([\d.]+)\)", prose(DOCS / "reload.md"), re.MULTILINE)
    assert len(said) >= 5
    for key, value in said:
        assert structure.fields(schema.Rollout)[key].default == float(value), key


def test_the_table_of_keys_of_app_workers() -> None:
    said = keys_and_defaults("key")
    others = {*config_channels.KEYS, "max_deliveries", "dead_letters", "layer"}
    _agree(said, others)
    assert said["threads"].startswith(f"{relay.DEFAULT_THREADS},")
    assert said["concurrency"].startswith(f"{relay.DEFAULT_CONCURRENCY};")


def test_the_table_of_keys_of_channel_workers() -> None:
    said = keys_and_defaults("key of channel workers")
    of_app_workers = set(keys_and_defaults("key"))
    _agree(said, of_app_workers - {"asgi", "python", "concurrency", "redeliver"})
    assert said["concurrency"] == str(config_channels.DEFAULT_CONCURRENCY)


def test_the_tables_of_keys_of_the_channel_layer() -> None:
    said = keys_and_defaults("key of the channel layer")
    assert set(said) == set(structure.fields(schema.ChannelLayer))
    table = schema.ChannelLayer()
    assert said["memory"].strip('"') == table.memory
    assert said["connections"] == str(table.connections)
    said = keys_and_defaults("option of the local layer")
    assert set(said) == set(structure.fields(schema.LocalOptions))
    options = schema.LocalOptions()
    for key in ("capacity", "expiry", "group_expiry", "timeout"):
        assert float(said[key]) == getattr(options, key), key


def keys_and_defaults(head: str) -> dict[str, str]:
    said = {}
    for keys, default, _ in table(DOCS / "configuration.md", head, "default"):
        for key in keys.split(", "):
            said[key.strip("`")] = default.strip("`")
    return said


def _agree(said: dict[str, str], others: set[str]) -> None:
    """The keys of workers but `others` are those that are said, with these defaults."""
    others = others | {"command", "ready", "on_reload", *structure.fields(schema.Pool)}
    has = {
        key: field for key, field in structure.fields(schema.Workers).items() if key not in others
    }
    assert set(said) == set(has)
    for key, field in has.items():
        if field.default in (True, False):
            assert said[key] == str(field.default).lower(), key
        elif isinstance(field.default, int | float):
            assert float(said[key]) == field.default, key
        elif isinstance(field.default, str):
            assert said[key].strip('"') == field.default, key


LABELS_IN_WORDS = ("method", "status", "code")  # whose values the page has as ranges


def documented_families() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield name, type, labels and meaning of each row of the tables of metrics."""
    row = re.compile(r"^\| `(chansup_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", re.MULTILINE)
    for section in (DOCS / "metrics.md").read_text().split("\n## "):
        common = re.search(r"All have\s+the labels `(\w+)` and `(\w+)`", section)
        first = common.groups() if common else ()
        for family, kind, labels, meaning in row.findall(section):
            yield family, kind, (*first, *re.findall(r"`(\w+)`", labels)), meaning


def test_the_tables_of_metrics_are_the_declarations() -> None:
    rows = list(documented_families())
    families = declared()
    shown = [row[:3] for row in rows]
    assert sorted(shown) == sorted((one.name, one.kind, one.labels) for one in families)
    meanings = {row[0]: row[3] for row in rows}
    for family in families:
        for label in family.fixed:
            for value in label.values if label.name not in LABELS_IN_WORDS else ():
                assert f"`{value}`" in meanings[family.name], (family.name, value)


def test_the_map_for_contributors_has_every_room() -> None:
    (shown,) = (block for block in blocks(ROOT / "CONTRIBUTING.md") if block.language == "text")
    said, above = set(), ""
    for indent, room in re.findall(r"^( {2}| {4})(\w+)/ ", shown.text, re.MULTILINE):
        above = room if len(indent) == 2 else above
        said.add(room if len(indent) == 2 else f"{above}/{room}")
    package = ROOT / "chansup"
    has = {str(door.parent.relative_to(package)) for door in package.glob("*/__init__.py")}
    for room in ("supervisor", "cli"):
        inner = (package / room).glob("*/__init__.py")
        has |= {str(door.parent.relative_to(package)) for door in inner}
    assert said == has


@cache
def strings() -> str:
    """Return every string of chansup's sources, and every constant part of an f-string."""
    found = []
    for file in (ROOT / "chansup").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def messages() -> list[str]:
    """Return the messages that troubleshooting.md explains."""
    page = DOCS / "troubleshooting.md"
    found = []
    for rows in tables(page):
        if "message" in rows[0]:
            column = rows[0].index("message")
            found += [row[column].strip("`") for row in rows[1:]]
    quoted = [code for code in inline_code(page) if "…" in code and " " in code]
    found += [code for code in quoted if '"unix:' not in code]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("message", messages())
def test_messages_are_chansup_s_own(message: str) -> None:
    fragments = [fragment.strip() for fragment in message.split("…")]
    telling = [fragment for fragment in fragments if len(fragment) > 6]
    assert telling, message
    for fragment in telling:
        assert fragment in strings(), f"nothing says {fragment!r}"


def test_nothing_tells_of_the_machine_it_was_written_on() -> None:
    for page in PAGES:
        assert not re.search(r"/work/|/root/|/tmp/(?!chansup-UID)\w", page.read_text()), page


def test_there_is_something_to_look_at() -> None:
    assert len(all_blocks("toml")) > 15
    assert len(all_blocks("console")) > 10
    assert len(messages()) > 30


def test_the_journeys_name_files_that_exist_and_count_them() -> None:
    section = (DOCS / "architecture.md").read_text().partition("## Four journeys\n")[2]
    section = section.partition("\n## ")[0]
    journeys = re.findall(r"^### .+: (\d+) files\n\n((?:.+\n)+)", section, re.MULTILINE)
    assert len(journeys) == 4
    for count, hops in journeys:
        files = re.findall(r"^\d+\. `([\w/]+)` ", hops, re.MULTILINE)
        assert len(files) == len(set(files)) == int(count)
    for path in re.findall(r"`(\w+/[\w/]+)`", section):
        assert (ROOT / "chansup" / f"{path}.py").exists(), path
