"""The commands of `chansup`, nothing else: what they do is done elsewhere.

Everything is imported by the command that needs it, so that each starts fast and `run` stays small.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from chansup import __version__
from chansup.errors import ChansupError, ExitCode
from chansup.trial.command import check_handover, handover_options

if TYPE_CHECKING:
    from chansup.client import Client
    from chansup.protocol.status import Event

DEFAULT_CONFIG = "chansup.toml"
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its code. Whatever goes wrong is one message, no traceback."""
    _open_standard_descriptors()
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed by the caller: >&-
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # `chansup reload > file 2>&1` keeps the order of its lines, and `| tee` shows them at once.
        sys.stdout.reconfigure(line_buffering=True)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # as in `chansup logs | head`
        _forget_stdout()
        code = BROKEN_PIPE
    except OSError as error:  # a full disk behind stdout, say
        _forget_stdout()
        where = f"{error.filename}: " if error.filename else ""
        _say_error(f"{where}{error.strerror or error}")
        code = ExitCode.FAILED
    except Exception as error:
        _forget_stdout()
        _say_error(f"a defect in chansup: {error!r}. Please report it; CHANSUP_DEBUG=1 shows more")
        if os.environ.get("CHANSUP_DEBUG"):
            raise
        code = ExitCode.FAILED
    sys.exit(code)


def _open_standard_descriptors() -> None:
    """Occupy 0, 1 and 2 where the caller closed them: a socket there would be taken for stdout."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def _forget_stdout() -> None:
    """Let nothing more be written to a stdout that does not take it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str] | None) -> int:
    try:
        return chansup.main(arguments, prog_name="chansup", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ChansupError as error:
        if hasattr(error, "problems"):  # of a config: each names its file and line
            click.echo(str(error), err=True)
        else:
            _say_error(str(error))
        for line in getattr(error, "lines", ()):
            click.echo(f"  {_clean(line)}", err=True)
        return error.exit_code


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # click would exit with 1
            _forget_stdout()
            raise click.exceptions.Exit(BROKEN_PIPE) from None


def _remember_config(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value:
        context.find_root().meta["chansup.config"] = value


def _config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take -c before the command as well as after it; the later one wins."""
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        expose_value=False,
        callback=_remember_config,
        help=f"Config file.  [default: $CHANSUP_CONFIG, else {DEFAULT_CONFIG} here or above]",
    )(function)


def _config() -> Path:
    """Return the absolute path of the config file; symlinks stay."""
    from chansup.config import location

    context = click.get_current_context().find_root()
    given = context.meta.get("chansup.config")
    name = given or os.environ.get("CHANSUP_CONFIG")
    try:
        if name:
            return location.absolute(name)
        return location.find() or location.absolute(DEFAULT_CONFIG)
    except FileNotFoundError:
        raise ChansupError(
            "the working directory does not exist any more: change to another one, or give -c with"
            " an absolute path"
        ) from None


def _client() -> "Client":
    """Return the client of the supervisor; say so if that is another user's."""
    client = _quiet_client()
    if whose := client.whose():
        click.echo(f"chansup: {whose}", err=True)
    return client


def _quiet_client() -> "Client":
    from chansup.client import find

    return find(_config(), os.environ)


def _held_addresses() -> list[str]:
    """Return the addresses that are in use because the supervisor of this config runs."""
    try:
        status = _quiet_client().status()
    except ChansupError:
        return []
    return [*status.addresses, *([status.admin] if status.admin else [])]


def _complete_target(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    try:
        with context:
            pools = _quiet_client().status().pools
    except Exception:  # completion never gets in the way
        return []
    names = [pool.name for pool in pools] + [slot.name for pool in pools for slot in pool.slots]
    return [name for name in names if name.startswith(incomplete)]


def _complete_channel(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    try:
        with context:
            pools = _quiet_client().consumption().pools
    except Exception:  # completion never gets in the way
        return []
    names = {name for pool in pools for name in pool.channels}
    return sorted(name for name in names if name.startswith(incomplete))


_wait_option = click.option(
    "--no-wait", is_flag=True, help="Return as soon as the command was taken."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@_config_option
@click.version_option(__version__, prog_name="chansup", message="%(prog)s %(version)s")
def chansup() -> None:
    """Run a real-time Python web deployment from one TOML file, and keep it up."""


@chansup.command()
@_config_option
@click.option("--watch", is_flag=True, help="Reload whenever a file of the project changes.")
def run(watch: bool) -> int:
    """Start everything in the config file and keep it up.

    SIGTERM, SIGQUIT or Ctrl-C stops everything in order, a second one hurries. SIGHUP is `chansup
    reload`, and a stop when the terminal was closed.
    """
    from chansup.supervisor.run import main

    config = _config()
    if watch:
        from chansup.watch import start

        start(config)
    return main(config)


@chansup.command("exec", context_settings={"allow_interspersed_args": False})
@_config_option
@click.option(
    "--pool", metavar="POOL", shell_complete=_complete_target,
    help="Run it as the processes of this pool run.",
)  # fmt: skip
@click.argument("words", metavar="-- COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(words: tuple[str, ...], pool: str | None) -> int:
    """Run a command with the environment of the site.

    It gets the variables, the directory, the interpreter and the user of the site's processes, as
    in: chansup exec -- python manage.py migrate. The exit code is the command's. No supervisor has
    to run.
    """
    from chansup.one_off import execute as execute_command

    execute_command(_config(), os.environ, list(words), pool)


@chansup.command()
@_config_option
@_json_option
@handover_options
def check(as_json: bool, handover: str | None, **trial: Any) -> int:
    """Check the config file, and whether what it names can be used. Starts nothing.

    With --handover, try a move on the running site instead. It exits with 0 if the WebSocket
    survives, 6 if it is closed, so that its client comes back, and 7 if it is left for dead.
    """
    if (code := check_handover(_client, handover, trial, as_json)) is not None:
        return code
    from chansup.config.check import check as check_config
    from chansup.project import several_processes

    config = _config()
    client = _quiet_client()
    # Another user's, who runs the site, is not ours to judge.
    directory = client.socket_path.parent if client.whose() is None else None
    report = check_config(config, os.environ, _held_addresses(), directory)
    report.warnings.extend(several_processes.warnings(config, os.environ))
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(report))
    else:
        from chansup.display import show_report

        show_report(config, report)
    return ExitCode.FAILED if report.problems else ExitCode.OK


@chansup.command()
@_config_option
@_wait_option
@_json_option
def reload(no_wait: bool, as_json: bool) -> int:
    """Deploy: replace every process by one of the new code.

    The config is read again, too. New processes start before old ones end. If the new code does
    not boot, the old code keeps serving, and the exit code is 1.
    """
    return _follow(_client().reload(wait=not no_wait), "The rollout", as_json)


@chansup.command()
@_config_option
@_wait_option
@_json_option
@click.argument("target", metavar="[POOL|SLOT]", required=False, shell_complete=_complete_target)
def restart(target: str | None, no_wait: bool, as_json: bool) -> int:
    """Replace the processes of a pool, of a slot, or all.

    The config is not read again. "All" leaves out programs that a reload keeps, and an interface
    that relays: name them.
    """
    if target == "":
        raise click.BadParameter("the name of a pool or slot is empty", param_hint="POOL|SLOT")
    return _follow(_client().restart(target, wait=not no_wait), "The restart", as_json)


@chansup.command()
@_config_option
@_wait_option
@_json_option
@click.argument("change", metavar="POOL=N")
def scale(change: str, no_wait: bool, as_json: bool) -> int:
    """Run N processes of a pool.

    The number holds until the config next changes it.
    """
    pool, _, number = change.partition("=")
    if not pool or not (number.isascii() and number.isdigit()):
        raise click.UsageError(f"expected POOL=N, as in web=4, not {change!r}")
    return _follow(_client().scale(pool, int(number), wait=not no_wait), "The change", as_json)


@chansup.command()
@_config_option
@_wait_option
@_json_option
def stop(no_wait: bool, as_json: bool) -> int:
    """Stop everything in order, the supervisor last.

    Processes finish what they hold.
    """
    return _follow(_client().stop(wait=not no_wait), "The stop", as_json)


@chansup.command()
@_config_option
@_json_option
@click.option("-w", "--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> int:
    """Show pools, slots and the rollout under way."""
    client = _client()
    if as_json:
        import msgspec

        for current in _repeated(client) if watch else [client.status()]:
            click.echo(msgspec.json.encode(current))
    else:
        from chansup.display import show_status, watch_status

        if watch and sys.stdout.isatty():
            watch_status(_repeated(client))
        else:
            for current in _repeated(client) if watch else [client.status()]:
                show_status(current)
    return ExitCode.OK


@chansup.command()
@_config_option
@_json_option
@click.option("-f", "--follow", is_flag=True, help="Continue with new lines, until Ctrl-C.")
@click.option(
    "-n", "--lines", default=100, metavar="LINES", type=click.IntRange(0), show_default=True,
    help="How many recent lines.",
)  # fmt: skip
@click.argument("target", metavar="[POOL|SLOT]", required=False, shell_complete=_complete_target)
def logs(target: str | None, lines: int, follow: bool, as_json: bool) -> int:
    """Show what a pool, a slot or all have printed lately."""
    stream = _client().logs(target, lines, follow)
    if as_json:
        import msgspec

        for line in stream:
            click.echo(msgspec.json.encode(line))
    else:
        from chansup.display import LogPrinter

        printer = LogPrinter(sys.stdout)
        for line in stream:
            printer.print(line)
    return ExitCode.OK


@chansup.command()
@_config_option
@_json_option
@click.option(
    "-s", "--seconds", default=10.0, metavar="SECONDS", type=click.FloatRange(1, 3600),
    show_default=True, help="For how long to measure.",
)  # fmt: skip
@click.option("-w", "--watch", is_flag=True, help="Measure again and again, until Ctrl-C.")
@click.argument("channel", metavar="[CHANNEL]", required=False, shell_complete=_complete_channel)
def latency(channel: str | None, seconds: float, watch: bool, as_json: bool) -> int:
    """Measure how long messages to channel workers wait and take.

    It says whether the workers keep up. The exit code is 1 when they do not, or when nobody
    consumes a channel. Ctrl-C ends it early.
    """
    import msgspec

    from chansup.latency import table
    from chansup.latency.measure import measure, measure_again_and_again

    client = _client()
    on_terminal = sys.stdout.isatty() and not as_json
    if watch:
        each = measure_again_and_again(client, seconds, channel)
        if on_terminal:
            table.watch(each)
        for measured in each:
            click.echo(msgspec.json.encode(measured) if as_json else table.plain(measured))
    with table.Countdown(seconds if on_terminal else None) as countdown:
        measured = measure(client, seconds, channel, countdown.show)
    if on_terminal:
        table.show(measured)
    else:
        click.echo(msgspec.json.encode(measured) if as_json else table.plain(measured))
    return ExitCode.OK if measured.is_well else ExitCode.FAILED


@chansup.command()
@_config_option
@click.option("--force", is_flag=True, help="Overwrite the file if there is one.")
@click.option("--stdout", is_flag=True, help="Print the file instead of writing it.")
def init(force: bool, stdout: bool) -> int:
    """Write a config file for the project in this directory.

    With -c FILE: for the project in the directory of that file.
    """
    from chansup.project import discover, notes, render, write

    config = _config()
    project = discover(config.parent)
    if stdout:
        click.echo(render(project), nl=False)
    else:
        write(project, config, force)
        click.echo(f"Wrote {config}. Look it over, then: chansup check && chansup run")
    for note in notes(project):
        click.echo(note, err=True)
    return ExitCode.OK


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
@_json_option
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


@chansup.command()
@click.argument("page", metavar="[PAGE]", required=False)
def docs(page: str | None) -> int:
    """Show a page of the documentation, or the list of pages.

    The example config, the systemd unit and nginx's config are pages, too:
    chansup docs chansup.service.
    """
    from chansup import documentation

    if page is not None:
        text = documentation.page(page)
        click.echo_via_pager(text) if sys.stdout.isatty() else click.echo(text, nl=False)
        return ExitCode.OK
    pages = documentation.pages()
    width = max(map(len, pages), default=0)
    for name, path in pages.items():
        click.echo(f"{name:<{width}}  {documentation.title(path)}")
    return ExitCode.OK


@chansup.command()
@_config_option
@_json_option
def version(as_json: bool) -> int:
    """Show the version of chansup, and of the supervisor if one runs."""
    import platform

    document: dict[str, object] = {
        "version": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
    }
    try:
        document["supervisor"] = _client().version()
    except ChansupError:
        document["supervisor"] = None
    if as_json:
        import json

        click.echo(json.dumps(document))
        return ExitCode.OK
    click.echo(f"chansup {__version__} (Python {document['python']}, {sys.executable})")
    if isinstance(running := document["supervisor"], dict):
        other = (
            "" if running.get("version") == __version__ else ": `chansup run` again to update it"
        )
        click.echo(f"supervisor {running.get('version')} (pid {running.get('pid')}){other}")
    return ExitCode.OK


def _follow(events: "Iterator[Event]", what: str, as_json: bool) -> int:
    """Show the events of a command as they come, and return what it exits with."""
    code = 0
    try:
        if as_json:
            import msgspec

            for event in events:
                click.echo(msgspec.json.encode(event))
                code = event.exit_code if event.type == "result" else code
            return code
        from chansup.display import ProgressDisplay

        with ProgressDisplay() as display:
            for event in events:
                display.show(event)
                code = event.exit_code if event.type == "result" else code
            if not display.finished:
                click.echo(f"{what} continues; `chansup status --watch` shows it.")
        return code
    except KeyboardInterrupt:
        click.echo(f"\n{what} continues; `chansup status --watch` shows it.", err=True)
        return INTERRUPTED


def _repeated(client: "Client") -> "Iterator[Any]":
    import time

    while True:
        yield client.status()
        time.sleep(1)


def _clean(line: str) -> str:
    from chansup.text import clean

    return clean(line)


def _say_error(message: str) -> None:
    click.secho("chansup: ", fg="red", bold=True, err=True, nl=False)
    click.echo(message, err=True)
