"""The command `chansup bench`."""

from typing import Any

import click

from chansup.cli.commands import chansup
from chansup.cli.context import json_option


class _Connections(click.IntRange):
    def convert(self, value: Any, parameter: Any, context: Any) -> int:
        if isinstance(value, str) and value.endswith(".toml"):
            self.fail("bench reads no config file; its -c is --connections", parameter, context)
        return int(super().convert(value, parameter, context))


@chansup.command()
@click.argument("url", metavar="URL")
@click.option(
    "-c", "--connections", default=10, metavar="N", type=_Connections(1, 10_000),
    show_default=True, help="Connections at a time; bench reads no config file.",
)  # fmt: skip
@click.option(
    "-s", "--seconds", metavar="SECONDS", type=click.FloatRange(0, 86400, min_open=True),
    help="How long.  [default: 10, unless -n is given]",
)  # fmt: skip
@click.option(
    "-n", "--requests", metavar="N", type=click.IntRange(1), help="How many requests or messages."
)
@click.option(
    "--rate", metavar="N", type=click.FloatRange(0, 1_000_000, min_open=True),
    help="Requests or messages per second in all; what each takes is counted from when it was due."
    "  [default: each connection asks again at once]",
)  # fmt: skip
@click.option(
    "--timeout", default=10.0, metavar="SECONDS", type=click.FloatRange(0.01, 3600),
    show_default=True, help="For each connection and each answer.",
)  # fmt: skip
@click.option("-H", "--header", "headers", multiple=True, metavar="HEADER", help="'Name: value'.")
@click.option("--insecure", is_flag=True, help="Accept any certificate.")
@click.option("--method", metavar="METHOD", help="HTTP: the method.  [default: GET, or POST]")
@click.option("--data", metavar="TEXT|@FILE", help="HTTP: the body of each request.")
@click.option(
    "--message",
    metavar="TEXT",
    help="WebSocket: the message to send; {n} becomes a number of its own.",
)
@click.option("--idle", is_flag=True, help="WebSocket: only hold the connections open.")
@json_option
def bench(
    url: str,
    connections: int,
    seconds: float | None,
    requests: int | None,
    rate: float | None,
    timeout: float,
    headers: tuple[str, ...],
    insecure: bool,
    method: str | None,
    data: str | None,
    message: str | None,
    idle: bool,
    as_json: bool,
) -> int:
    """Measure how fast a server answers over HTTP or WebSocket.

    URL begins with http://, https://, ws:// or wss://. A WebSocket sends a message, waits for one
    that comes back, and sends the next. The exit code is 1 if anything failed. Ctrl-C ends it and
    shows what there is.
    """
    from chansup.bench.run import run
    from chansup.bench.target import Options, parse_headers, parse_method, parse_url, read_data

    target = parse_url(url)
    wrong: dict[str, object] = {"--method": method, "--data": data}
    if not target.is_websocket:
        wrong = {"--message": message, "--idle": idle or None}
    elif idle:
        wrong |= {"--message": message, "--rate": rate, "--requests": requests}
    for option, given in wrong.items():
        if given is not None:
            kind = "--idle" if idle and target.is_websocket else f"{target.scheme}://"
            raise click.UsageError(f"{option} cannot be used with {kind}")
    if insecure and not target.is_secure:
        raise click.UsageError(f"--insecure cannot be used with {target.scheme}://")
    body = read_data(data)
    options = Options(
        connections=connections,
        seconds=seconds or (None if requests else 10.0),
        requests=requests,
        rate=rate,
        timeout=timeout,
        insecure=insecure,
        method=parse_method(method, body),
        headers=parse_headers(headers),
        data=body,
        message=Options.message if message is None else message,
        idle=idle,
    )
    return run(target, options, as_json)
