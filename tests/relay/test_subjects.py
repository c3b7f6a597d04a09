"""The test suites of Starlette, uvicorn and Django Channels: through the relay as without.

Each runs twice in a process of its own, with the plugin in subjects/: once as it is, once with what
it gives to a server or test client behind both sides of the relay. What comes of each test must be
the same, except for what stands in the table.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "subjects"
DOWNLOADED = Path(sys.prefix) / "subjects"  # by scripts/subjects
PATIENCE = 110.0  # seconds for one run


@dataclass(frozen=True)
class Subject:
    """Where tests are, which of them are run, and how many that must be at least."""

    name: str
    paths: list[str]
    chosen: str  # pytest's -k
    number: int
    options: list[str] = field(default_factory=list)


STARLETTE = Subject(
    "starlette", ["tests"], "not trio", 600,
    # Its requirements are many, and it is not about what an app sees.
    ["--ignore=tests/middleware/test_opentelemetry.py"],
)  # fmt: skip
UVICORN = Subject(
    "uvicorn", ["tests/protocols", "tests/middleware/test_proxy_headers.py"],
    # One of the implementations that uvicorn has of each protocol.
    "not trio and not h11 and not wsproto and not zttp and not bigger_than_default", 300,
)  # fmt: skip
CHANNELS = Subject(
    "channels",
    ["tests/test_generic_http.py", "tests/test_generic_websocket.py", "tests/test_http.py",
     "tests/test_routing.py", "tests/test_testing.py", "tests/security"],
    "not trio", 30,
)  # fmt: skip

DEBUG = "http.response.debug is the test client's own, and not offered behind the relay"
OWN_500 = "the relay answers for an app that has raised, in its own words"
CLOSED = "the relay closes with a code (1011, 1000) where uvicorn breaks off with 1006"
REASON = "the relay always gives a reason with a disconnect, an empty one if there is none"
AHEAD = "what the app sends goes ahead of the server, up to a window, and pieces are joined"
LATE = "the session ends before the app has raised in the other process; it is in the log"
DIFFERENCES = {
    "starlette": {
        r".*test_templates\.py::.*": DEBUG,
        r".*test_debug_info_in_response_extensions.*": DEBUG,
        r".*test_force_500_response.*": OWN_500,
        r".*test_streaming_response_applies_backpressure.*": AHEAD,
        r".*test_streaming_response_skips_empty_and_head_bodies.*": AHEAD,
        r".*test_streaming_response_copies_mutable_chunks.*": AHEAD,
        r".*test_invalid_trailer_sequence.*":
            "send() does not wait for the other process, and cannot raise what is said there",
        r".*test_incomplete_trailers.*": "a response whose trailers are missing is broken off",
        r".*test_closing_completed_trailers_waits_for_application.*": AHEAD,
        r".*test_websocket_concurrency_pattern.*":
            "as of ASGI 2.4 send() raises OSError once the client has gone: the test client's does not",
        r".*test_(receive_wrong_message_type|receive_before_accept|websocket_endpoint_on_.*)\[.*": LATE,
    },
    "uvicorn": {
        r".*test_no_response_returned.*": OWN_500,
        r".*test_value_returned.*": OWN_500,
        r".*test_(duplicate_handshake|asgi_return_value|close_transport_on_asgi_return)\[.*": CLOSED,
        r".*test_connection_lost_before_handshake_complete.*": REASON,
        r".*test_send_close_on_server_shutdown.*": REASON,
        r".*test_server_reject_connection.*": REASON,
        r".*test_server_multiple_websocket_http_response_start_events.*":
            "the relay refuses the message, in other words",
        r".*test_(send_respects_write_backpressure|connection_lost_unblocks_paused_send)\[.*": AHEAD,
        r".*test_(close_resumes_reads_paused|send_after_peer_close_raises).*":
            "the test counts turns of the loop, and the relay takes more",
    },
    "channels": {
        r".*test_async_http_consumer":
            "the communicator sends a body that its headers do not announce, over HTTP/1.1",
        r".*test_(error|session_samesite_invalid|session_save_update_error)": OWN_500,
        r".*test_block_(underscored|leading_dot)_type_function_call": CLOSED,
        r".*test_accept_headers\[.*": "the pairs of headers are tuples, whatever they were",
    },
}  # fmt: skip


def source(subject: Subject) -> Path:
    """Return the directory of a subject's tests; skip, or fail under CI, if they are not here."""
    if subject is CHANNELS:
        if "CHANNELS_SOURCE" not in os.environ:
            pytest.skip("Channels does not release its tests: set CHANNELS_SOURCE to a checkout")
        return Path(os.environ["CHANNELS_SOURCE"])
    found = [*DOWNLOADED.glob(f"{subject.name}-[0-9]*")]
    if found:
        return found[0]
    if os.environ.get("CI") == "true":
        pytest.fail(f"scripts/subjects has not downloaded {subject.name}")
    pytest.skip(f"{subject.name}'s tests are not here: scripts/subjects {sys.prefix}")


def outcomes(subject: Subject, mode: str, directory: Path) -> dict[str, str]:
    """Run the tests; return what came of each."""
    written = directory / f"{mode}.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", *subject.paths, "-q", "-p", "relay_plugin",
            "-p", "no:cacheprovider", "-p", "no:xdist", "-k", subject.chosen,
            "-o", "addopts=", "-o", "filterwarnings=ignore", *subject.options,
        ],
        cwd=source(subject),
        env={
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            "SUBJECT": subject.name,
            "RELAY_SUBJECT": mode,
            "OUTCOMES": str(written),
            "PYTHONPATH": os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert written.exists(), done.stdout[-3000:]
    found: dict[str, str] = json.loads(written.read_text())
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("subject", [STARLETTE, UVICORN, CHANNELS], ids=lambda one: one.name)
@pytest.mark.thorough
def test_subject(subject: Subject, tmp_path: Path) -> None:
    if subject.name == "uvicorn":
        assert source(subject).name == f"uvicorn-{importlib.metadata.version('uvicorn')}"
    source(subject)
    at_once = 1 if subject is CHANNELS else 2  # its tests share a database file
    with ThreadPoolExecutor(at_once) as both:
        direct, relayed = both.map(
            lambda mode: outcomes(subject, mode, tmp_path), ["direct", "relayed"]
        )
    passed = [name for name, outcome in direct.items() if outcome == "passed"]
    assert len(passed) >= subject.number
    unexpected = [
        f"{direct.get(name)} directly, {relayed.get(name)} relayed: {name}"
        for name in {**direct, **relayed}
        if direct.get(name) != relayed.get(name)
        and not any(re.fullmatch(pattern, name) for pattern in DIFFERENCES[subject.name])
    ]
    assert not unexpected, "\n".join(unexpected)
