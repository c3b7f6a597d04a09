"""The options of ``chansup check --handover``, and what they mean."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from chansup.text import TOKEN, header

if TYPE_CHECKING:
    from chansup.cli.client import Client
    from chansup.cli.trial.conversation import Options

_DEFAULT_MESSAGE = "chansup check"
_OWN = ("sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "upgrade")

_OPTIONS = (
    click.option(
        "--handover", metavar="URL",
        help="Try on the running site whether a WebSocket survives a move: connect to ws://… or"
        " wss://…, speak, have it moved, speak again, compare.",
    ),
    click.option(
        "--send", multiple=True, metavar="TEXT",
        help="With --handover: a message before the move, such as a login; may be repeated.",
    ),
    click.option(
        "--again", multiple=True, metavar="TEXT",
        help="With --handover: a message after the move, which the app answers."
        "  [default: the last --send]",
    ),
    click.option(
        "--answers", metavar="N", type=click.IntRange(0, 100),
        help="With --handover: answers to each message.  [default: what comes until it is silent]",
    ),
    click.option(
        "--silence", metavar="SECONDS", type=click.FloatRange(0.05, 600), default=2.0,
        show_default=True, help="With --handover: how long to wait for an answer.",
    ),
    click.option(
        "--subprotocol", "subprotocols", multiple=True, metavar="NAME",
        help="With --handover: offer a subprotocol.",
    ),
    click.option(
        "-H", "--header", "headers", multiple=True, metavar="HEADER",
        help="With --handover: 'Name: value'; a session as 'Cookie: sessionid=…'.",
    ),
    click.option("--insecure", is_flag=True, help="With --handover: accept any certificate."),
    click.option(
        "--restart", metavar="POOL",
        help="With --handover: replace all processes of a pool, instead of moving one WebSocket.",
    ),
)  # fmt: skip


def handover_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def check_handover(
    client: "Callable[[], Client]", url: str | None, given: dict[str, Any], as_json: bool
) -> int | None:
    """Run the trial; None where it was not asked for."""
    if url is None:
        options = {name: value for name, value in given.items() if name != "silence"}
        if any(options.values()) or options["answers"] is not None:
            raise click.UsageError("--send, --again and so on say how to try --handover URL")
        return None
    from chansup.cli.trial.run import run
    from chansup.protocol import encoding

    def say(text: str) -> None:
        click.echo(text, err=True)

    verdict = run(client(), _meant(url, given), given["restart"], say)
    if as_json:
        click.echo(encoding.encode_for_others(verdict))
    else:
        for line in verdict.lines():
            click.echo(line)
    return verdict.exit_code


def _meant(url: str, given: dict[str, Any]) -> "Options":
    from chansup.cli.trial.conversation import Options

    _check_url(url)
    first = list(given["send"])
    for name in given["subprotocols"]:
        if not TOKEN.match(name):
            raise click.UsageError(f"invalid --subprotocol {name!r}: give one name")
    return Options(
        url,
        subprotocols=given["subprotocols"],
        headers=[_header(text) for text in given["headers"]],
        first=first,
        again=list(given["again"]) or first[-1:] or [_DEFAULT_MESSAGE],
        answers=given["answers"],
        silence=given["silence"],
        insecure=given["insecure"],
    )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise click.UsageError(f"{url}: {error}") from None
    if parts.scheme not in ("ws", "wss"):
        other = {"http": "ws", "https": "wss"}.get(parts.scheme)
        meant = f"{other}{url[len(parts.scheme) :]}" if other else "ws://127.0.0.1:8000/ws/"
        raise click.UsageError(f"{url!r} is not the URL of a WebSocket: write one as in {meant}")
    if not parts.hostname or parts.fragment:
        raise click.UsageError(f"{url}: write a host and no fragment, as in ws://127.0.0.1:8000/")


def _header(text: str) -> tuple[str, str]:
    found = header(text)
    if found is None or found[0].lower() in _OWN:
        raise click.UsageError(f"invalid --header {text!r}: write 'Name: value'")
    return found
