"""Within a room, too, arrows point down: a module imports only what stands on a lower level.

`LEVELS` has each room, from the bottom up; "." is the package itself. A name is a module or a
package of the room; a package has levels of its own. An import counts wherever it stands, under `TYPE_CHECKING`
and in functions, too. `__init__` is the room's door: it may import all of the room, and nobody in
the room imports what stands in it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "chansup"
DOORS = ("__init__",)
MAX_FILE = 400  # lines
MAX_CLASS = 300  # lines

Levels = tuple[tuple[str, ...], ...]

LEVELS: dict[str, Levels] = {
    ".": (
        (
            "background",
            "backoff",
            "clock",
            "errors",
            "private_parts",
            "text",
            "unix",
            "vendored",
            "waiters",
            "waiting",
            "wire",
        ),
        ("log_lines", "protocol"),
        ("bench", "config", "handover", "tracebacks"),
        ("carry", "layer", "project", "relay", "supervisor"),
        ("check", "worker"),
        ("cli", "launch"),
        ("entry",),
        ("__main__",),
    ),
    "bench": (
        ("errors", "latencies", "pace", "ticks"),
        ("counters", "target"),
        ("connection",),
        ("http", "websocket"),
        ("load",),
        ("result",),
        ("show",),
        ("run",),
    ),
    "check": (
        ("probe", "rehearsal"),
        ("check",),
    ),
    "cli": (
        ("check_view", "client", "console", "documentation", "log_printer", "one_off", "watch"),
        ("context", "latency", "progress", "status_view", "trial"),
        ("commands",),
        ("bench",),
        ("main",),
    ),
    "cli/latency": (
        ("verdict",),
        ("comparison",),
        ("measure", "table"),
    ),
    "cli/trial": (
        ("comparison",),
        ("conversation", "verdict"),
        ("run",),
        ("command",),
    ),
    "config": (
        (
            "errors",
            "keys",
            "location",
            "runtime_places",
            "runworker",
            "schema",
            "server_variables",
            "session_packages",
            "text",
        ),
        (
            "accounts",
            "address",
            "certificates",
            "commands",
            "cores",
            "env_files",
            "foreground",
            "interpolation",
            "interpreter",
            "limits",
            "lines",
            "modes",
            "pools",
            "relay",
            "routes",
            "shell_words",
            "signals",
            "signposts",
            "size",
        ),
        ("carry", "channels", "option_files", "order", "readiness", "sessions", "structure"),
        ("rules",),
        ("load",),
        ("hub",),
    ),
    "config/rules": (
        ("context",),
        (
            "addresses",
            "application",
            "carry",
            "channel_layer",
            "handover",
            "interface",
            "names",
            "processes",
            "proxies",
            "timing",
            "workers",
        ),
        ("channels", "serving"),
    ),
    "launch": (
        (
            "adapter",
            "departure",
            "descriptors",
            "django_log",
            "forks",
            "frames",
            "guard_process",
            "in_flight",
            "listeners",
            "options",
            "prelude",
            "remedies",
            "reserved_options",
            "routers",
            "start_failures",
            "surroundings",
        ),
        ("differences", "drain", "instrument", "system_checks", "warm_up"),
        ("child",),
        ("application", "carried", "heartbeat", "retirement", "wsgi"),
        ("__main__", "daphne", "granian", "gunicorn", "hypercorn", "stopping", "uvicorn"),
        ("channels", "examine", "relay"),
        ("probe",),
    ),
    "layer": (
        ("delivery", "expressions", "frames", "in_hand", "names", "waiters"),
        ("errors", "memberships", "policies"),
        ("discovery", "greetings", "outbox", "serializers"),
        ("attempts", "demands", "farewell", "hub", "inbox", "loop_end", "requests"),
        ("conversation",),
        ("link",),
        ("client",),
        ("local",),
        ("choice",),
    ),
    "layer/hub": (
        ("channel", "ledger", "limits", "listening"),
        ("drops",),
        ("registry",),
        ("queues",),
        ("parking",),
        ("returning",),
        ("store",),
        ("observation", "outbox"),
        ("session", "takeover"),
        ("connection",),
        ("server",),
        ("__main__",),
    ),
    "project": (
        ("errors", "sources", "web_line"),
        ("containers", "frameworks", "reached", "sessions", "websockets"),
        ("live_connections",),
        ("in_process",),
        ("project", "several_processes"),
        ("django", "notes", "procfile", "render"),
        ("health", "write"),
        ("discover",),
    ),
    "protocol": (
        ("encoding",),
        (
            "carry",
            "channel_layer",
            "connection",
            "counters",
            "notify",
            "probe",
            "refusals",
            "run_mark",
            "sessions",
            "states",
            "versions",
        ),
        ("histogram", "hub_report", "roster", "shared_memory"),
        (
            "bulletin",
            "channel_report",
            "documents",
            "launch",
            "relay_board",
            "scoreboard",
            "session_table",
        ),
        ("status",),
    ),
    "carry": (
        ("delivery", "errors", "frames", "positions"),
        ("handshake", "layout"),
        ("arena", "link", "policy", "transport"),
        ("inbound", "outbound", "remainder", "views"),
        ("connection", "said"),
        ("adoption", "hosts", "opening"),
        ("arrivals", "stay"),
        ("carrier",),
    ),
    "handover": (
        ("errors", "extension", "mobility"),
        ("standing", "words"),
        ("parting",),
    ),
    "relay": (
        ("credits", "frames"),
        ("consumers", "greeting", "link", "scopes", "streams"),
        ("appworker", "interface"),
    ),
    "relay/appworker": (
        ("counters", "events", "lifespan", "orphans", "permits"),
        ("context",),
        ("sender",),
        ("exchange", "outbox"),
        ("websocket",),
        ("interface",),
        ("server",),
    ),
    "relay/interface": (
        (
            "error_pages",
            "headers",
            "parts",
            "phases",
            "pool_counters",
            "process_counters",
            "quarantine",
            "reports",
        ),
        ("answers", "worker"),
        ("affinity", "attachment", "choice", "handovers", "left_behind", "upload"),
        ("pool", "response", "watch"),
        ("retry", "standing"),
        ("client", "request", "suspicion"),
        ("passage",),
        ("journey",),
        ("websocket",),
        ("orders",),
        ("application",),
    ),
    "supervisor": (
        ("errors",),
        ("plan",),
        ("runtime",),
        ("logs",),
        ("sockets",),
        ("stats",),
        ("carry",),
        ("process",),
        ("pool",),
        ("site",),
        ("metrics",),
        ("api",),
        ("signals",),
        ("stale_slots",),
        ("upkeep",),
        ("supervisor",),
        ("run",),
    ),
    "supervisor/api": (
        ("exchange", "malformed", "paths", "report"),
        ("connection", "control", "operations", "page"),
        ("http",),
        ("admin",),
    ),
    "supervisor/carry": (
        ("channel", "counters", "held", "limits"),
        ("carrier", "quarantine"),
        ("adoption", "holdings"),
        ("giving",),
        ("holder",),
    ),
    "supervisor/logs": (
        ("levels", "line_reader", "log_batch", "recent_lines", "repetition", "subscription"),
        ("log_format", "traceback_joiner"),
        ("log_writer",),
    ),
    "supervisor/metrics": (
        ("children", "families", "readings", "snapshot"),
        ("own",),
        ("metrics",),
    ),
    "supervisor/plan": (
        ("command", "descriptors", "installed"),
        ("code_on_disk", "specification"),
        ("builder", "generation"),
        ("kinds",),
        ("building",),
    ),
    "supervisor/plan/kinds": (("hub", "interface", "programs", "tasks", "workers"),),
    "supervisor/pool": (
        ("crash", "host", "retirement", "single_moves", "turns"),
        ("examination", "filling", "tasks"),
        ("slot",),
        ("crash_limits", "pool", "replacement"),
        (
            "adopters",
            "announcements",
            "dependencies",
            "greetings",
            "liveness",
            "roster",
            "side_by_side",
            "stop_order",
        ),
        ("acceptance", "stopping", "surge", "way_back"),
        ("rollout",),
        ("rollouts",),
    ),
    "supervisor/process": (
        ("guard", "notify", "process_table", "reaper", "roster_pipe", "spawn"),
        ("accepting", "notify_sockets", "orphans"),
        ("resources",),
        ("process",),
        ("boot", "processes"),
    ),
    "supervisor/runtime": (
        ("run_record",),
        ("signposts",),
        ("runtime",),
        ("whereabouts",),
    ),
    "supervisor/signals": (("signal_reader", "terminal"),),
    "supervisor/sockets": (
        (
            "accept_queue",
            "hub_socket",
            "listeners",
            "socket_file",
            "steering",
            "systemd",
            "tcp",
            "unix_path",
            "worker_sockets",
        ),
        ("shared", "steered", "visitor"),
        ("opening",),
        ("addresses",),
    ),
    "supervisor/stats": (
        ("bulletins", "recent"),
        ("ledger",),
    ),
    "vendored": (("dotenv_parser",),),
    "worker": (
        ("dead_letters", "errors", "permits", "routes", "sources", "threads", "tracebacks"),
        ("counters", "instance", "listener", "redis"),
        ("layers", "worker"),
    ),
}


def children(room: Path) -> set[str]:
    """Return the names of the modules and packages of a room."""
    modules = {path.stem for path in room.glob("*.py")}
    packages = {path.parent.name for path in room.glob("*/__init__.py")}
    return (modules | packages) - set(DOORS)


def modules(room: Path, child: str) -> list[Path]:
    """Return the files that one name of a room stands for."""
    module = room / f"{child}.py"
    return [module] if module.exists() else sorted((room / child).rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, as far as they may be modules."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(package: Path, room: str, child: str) -> set[str]:
    """Return the names of the room that one of them imports; the room's own name for its door."""
    prefix = ".".join((package.name, *Path(room).parts))
    names = children(package / room)
    found = set()
    for file in modules(package / room, child):
        for name in imported(file):
            if name.startswith(f"{prefix}.") and name != f"{package.name}.__version__":
                target = name.removeprefix(f"{prefix}.").partition(".")[0]
                found.add(target if target in names else room)
    return found - {child}


def faults(package: Path, room: str, levels: Levels) -> list[str]:
    """Return what is wrong with a room."""
    listed = [name for level in levels for name in level]
    found = [
        f"{room}/{name} stands on two levels" for name in set(listed) if listed.count(name) > 1
    ]
    there = children(package / room)
    found += [f"{room}/{name} stands on no level" for name in sorted(there - set(listed))]
    found += [f"{room}/{name} is not there" for name in sorted(set(listed) - there)]
    below: set[str] = set()
    for level in levels:
        for name in level:
            if name in there:
                up = sorted(arrows(package, room, name) - below)
                found += [f"{room}/{name} imports {other}, which is not below it" for other in up]
        below.update(level)
    return found


def sizes(package: Path, room: str) -> list[str]:
    """Return the files and classes of a room that are too long."""
    found = []
    for file in sorted((package / room).glob("*.py")):
        text = file.read_text()
        if (count := text.count("\n")) > MAX_FILE:
            found.append(f"{room}/{file.name} has {count} lines, of {MAX_FILE} at most")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and node.end_lineno is not None:
                count = node.end_lineno - node.lineno + 1
                if count > MAX_CLASS:
                    found.append(f"{room}/{file.name}: class {node.name} has {count} lines")
    return found


@pytest.mark.parametrize("room", LEVELS)
def test_arrows_within_a_room_point_down(room: str) -> None:
    assert faults(PACKAGE, room, LEVELS[room]) == []


@pytest.mark.parametrize("room", LEVELS)
def test_no_file_and_no_class_is_too_long(room: str) -> None:
    assert sizes(PACKAGE, room) == []


def test_each_package_has_levels_of_its_own() -> None:
    packages = {
        path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")
    }
    assert packages == set(LEVELS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from house.room import above", "room/below imports above, which is not below it"),
        ("import house.room.above", "room/below imports above, which is not below it"),
        ("from house.room.above import X", "room/below imports above, which is not below it"),
        ("from house.room.inner.deep import X", "room/below imports inner, which is not below it"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.room import above",
            "room/below imports above, which is not below it",
        ),
        ("def f():\n    from house.room import above", "room/below imports above, which is not below it"),
        ("from house.room import beside", "room/below imports beside, which is not below it"),
        ("from house.room import NAME", "room/below imports room, which is not below it"),
        ("from house.room_of_others import X\nfrom house import other", None),
    ],
)  # fmt: skip
def test_an_arrow_that_points_up_is_found(tmp_path: Path, text: str, said: str | None) -> None:
    package = tmp_path / "house"
    (package / "room" / "inner").mkdir(parents=True)
    for name in ("room/__init__", "room/beside", "room/above", "room/inner/__init__"):
        (package / f"{name}.py").write_text("from house.room import below\n")
    (package / "room" / "__init__.py").write_text("from house.room.above import X\n")
    (package / "room" / "beside.py").write_text("")
    (package / "room" / "below.py").write_text(text)
    levels = (("below", "beside"), ("above", "inner"))
    assert faults(package, "room", levels) == ([said] if said else [])


def test_a_module_that_no_level_has_is_found(tmp_path: Path) -> None:
    (tmp_path / "house" / "room").mkdir(parents=True)
    (tmp_path / "house" / "room" / "new.py").write_text("")
    found = faults(tmp_path / "house", "room", (("old",),))
    assert found == ["room/new stands on no level", "room/old is not there"]
