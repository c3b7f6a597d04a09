"""`chansup check --handover`: what is compared, what it means, and what cannot be asked."""

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from chansup.cli.trial.comparison import Answer, compare
from chansup.cli.trial.conversation import Options, dial
from chansup.cli.trial.verdict import Trial, judge
from chansup.errors import ChansupError, ExitCode
from tests.running import command

WORDS = "word for word, but for numbers and ids"


@pytest.mark.parametrize(
    ("stayed", "moved", "is_same", "strictness"),
    [
        ([["pong"], ["pong"]], ["pong"], True, WORDS),
        ([["pong"], ["pong"]], ["who are you?"], False, WORDS),
        ([["pong"], ["pong"]], [], False, WORDS),
        ([["pong"], ["pong"]], ["welcome", "pong"], False, WORDS),
        # What differs from one time to the next is left out.
        ([["at 12:30:01"], ["at 12:30:02"]], ["at 12:31:59"], True, WORDS),
        ([['{"id": "a81bc81b-dead"}'], ['{"id": "c0ffee12-4e5d"}']], ['{"id": "0a1b2c3d-9f"}'], True, WORDS),
        ([[b"abc"], [b"xyz"]], [b"123"], True, WORDS),
        ([[b"abc"], [b"xyz"]], ["123"], False, WORDS),
        # Names differ, the structure does not.
        ([['{"hi": "ann"}'], ['{"hi": "bob"}']], ['{"hi": "eve"}'], True, "by structure"),
        ([['{"hi": "ann"}'], ['{"hi": "bob"}']], ['{"no": "eve"}'], False, "by structure"),
        ([['{"type": "x", "a": "b"}'], ['{"type": "x", "a": "c"}']],
         ['{"type": "y", "a": "b"}'], False, "by structure"),
        ([['{"l": ["a", {"b": 1}]}'], ['{"l": ["a", {"b": 2}]}']], ['{"l": ["a", {"b": 3}]}'], True, WORDS),
        ([['42["news", "a"]'], ['42["news", "b"]']], ['42["olds", "a"]'], False, "by structure"),
        ([["one two"], ["three four five"]], ["six"], True, "by kind"),
        # One that speaks by itself.
        ([['{"tick": 1}'], ['{"tick": 2}', '{"tick": 3}']], ['{"tick": 4}'], True, None),
        ([['{"tick": 1}'], ['{"tick": 2}', '{"tick": 3}']], ['{"error": 4}'], False, None),
        ([['{"tick": 1}'], ['{"tick": 2}', '{"tick": 3}']], [], False, None),
    ],
)  # fmt: skip
def test_comparison(
    stayed: list[list[Answer]], moved: list[Answer], is_same: bool, strictness: str | None
) -> None:
    found = compare(stayed, moved)
    assert (found.is_same, found.strictness) == (is_same, strictness)


def test_a_counter_that_began_anew_is_shown() -> None:
    verdict = judge(Trial("ws://x/", None, [["visit 2"], ["visit 2"]], ["visit 1"], [], None))
    assert verdict.finding == "survives" and verdict.numbers_differ
    assert "a counter that started from zero" in "\n".join(verdict.lines())
    assert not judge(
        Trial("ws://x/", None, [["pid 2"], ["pid 3"]], ["pid 1"], [], None)
    ).numbers_differ


def test_answers_that_are_deep_or_no_json_are_compared() -> None:
    deep = "[" * 5000 + "]" * 5000
    assert compare([[deep], [deep]], [deep]).is_same
    assert compare([["{", "a"], ["{", "b"]], ["{", "c"]).is_same


@pytest.mark.parametrize(
    ("moved", "code", "finding", "exit_code"),
    [
        (["pong"], None, "survives", ExitCode.OK),
        ([], None, "left for dead", ExitCode.LEFT_FOR_DEAD),
        (["what?"], None, "left for dead", ExitCode.LEFT_FOR_DEAD),
        ([], 1012, "closed", ExitCode.CLOSED),
        (["pong"], 1008, "closed", ExitCode.CLOSED),
    ],
)
def test_verdicts(moved: list[Answer], code: int | None, finding: str, exit_code: int) -> None:
    verdict = judge(Trial("ws://x/", None, [["pong"], ["pong"]], moved, [], code))
    assert (verdict.finding, verdict.exit_code) == (finding, exit_code)
    text = "\n".join(verdict.lines())
    assert text.startswith(finding)
    assert (str(code) in text) is (code is not None)


def test_what_a_stranger_answers_is_printed_safely() -> None:
    nasty: list[Answer] = ["\x1b[2J" + "x" * 500]
    verdict = judge(Trial("ws://x/", None, [["pong"], ["pong"]], nasty, nasty, None))
    text = "\n".join(verdict.lines())
    assert "\x1b" not in text and len(text) < 1500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--send", "x"], "say how to try --handover URL"),
        (["--handover", "http://localhost:8000/ws"], "ws://localhost:8000/ws"),
        (["--handover", "localhost:8000"], "is not the URL of a WebSocket"),
        (["--handover", "ws:///x"], "write a host"),
        (["--handover", "ws://x/", "-H", "nonsense"], "'Name: value'"),
        (["--handover", "ws://x/", "--subprotocol", "a b"], "invalid --subprotocol"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], message: str) -> None:
    done = command("check", *arguments)
    assert done.returncode == ExitCode.USAGE
    assert message in done.stderr


def test_no_supervisor() -> None:
    done = command("-c", "/nonexistent/chansup.toml", "check", "--handover", "ws://127.0.0.1:1/")
    assert done.returncode == ExitCode.NOT_RUNNING


def test_an_app_that_wants_the_origin() -> None:
    def only_of_browsers(connection: ServerConnection, request: Request) -> Response | None:
        return None if "Origin" in request.headers else connection.respond(403, "no origin")

    async def listen(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def try_it() -> None:
        async with serve(listen, "127.0.0.1", 0, process_request=only_of_browsers) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            url = f"ws://127.0.0.1:{port}/"
            with pytest.raises(ChansupError, match=r"answered 403.* -H 'Origin: https://HOST'"):
                await dial(Options(url))
            conversation = await dial(Options(url, headers=[("Origin", "https://localhost")]))
            await conversation.close()

    asyncio.run(try_it())
