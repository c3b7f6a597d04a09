"""The commands of `chansup`, nothing else: what they do is done elsewhere.

Everything is imported by the command that needs it, so that each starts fast and `run` stays small.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from chansup import __version__
from chansup.cli.context import (
    BROKEN_PIPE,
    INTERRUPTED,
    complete_channel,
    complete_target,
    config_option,
    config_path,
    find_client,
    forget_stdout,
    held_addresses,
    json_option,
    quiet_client,
    wait_option,
)
from chansup.cli.trial.command import check_handover, handover_options
from chansup.errors import ChansupError, ExitCode

if TYPE_CHECKING:
    from chansup.cli.client import Client
    from chansup.protocol.status import Event


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # click would exit with 1
            forget_stdout()
            raise click.exceptions.Exit(BROKEN_PIPE) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@config_option
@click.version_option(__version__, prog_name="chansup", message="%(prog)s %(version)s")
def chansup() -> None:
    """Run a real-time Python web deployment from one TOML file, and keep it up."""


@chansup.command()
@config_option
@click.option("--watch", is_flag=True, help="Reload whenever a file of the project changes.")
def run(watch: bool) -> int:
    """Start everything in the config file and keep it up.

    SIGTERM, SIGQUIT or Ctrl-C stops everything in order, a second one hurries. SIGHUP is `chansup
    reload`, and a stop when the terminal was closed.
    """
    from chansup.supervisor.run import main

    config = config_path()
    if watch:
        from chansup.cli.watch import start

        start(config)
    return main(config)


@chansup.command("exec", context_settings={"allow_interspersed_args": False})
@config_option
@click.option(
    "--pool", metavar="POOL", shell_complete=complete_target,
    help="Run it as the processes of this pool run.",
)  # fmt: skip
@click.argument("words", metavar="-- COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(words: tuple[str, ...], pool: str | None) -> int:
    """Run a command with the environment of the site.

    It gets the variables, the directory, the interpreter and the user of the site's processes, as
    in: chansup exec -- python manage.py migrate. The exit code is the command's. No supervisor has
    to run.
    """
    from chansup.cli.one_off import execute as execute_command

    execute_command(config_path(), os.environ, list(words), pool)


@chansup.command()
@config_option
@json_option
@handover_options
def check(as_json: bool, handover: str | None, **trial: Any) -> int:
    """Check the config file, and whether what it names can be used. Starts nothing.

    With --handover, try a move on the running site instead. It exits with 0 if the WebSocket
    survives, 6 if it is closed, so that its client comes back, and 7 if it is left for dead.
    """
    if (code := check_handover(find_client, handover, trial, as_json)) is not None:
        return code
    from chansup.check.check import check as check_config
    from chansup.project import several_processes

    config = config_path()
    client = quiet_client()
    # Another user's, who runs the site, is not ours to judge.
    directory = client.socket_path.parent if client.whose() is None else None
    report = check_config(config, os.environ, held_addresses(), directory)
    report.warnings.extend(several_processes.warnings(config, os.environ))
    if as_json:
        from chansup.protocol import encoding

        click.echo(encoding.encode_for_others(report))
    else:
        from chansup.cli.check_view import show_report

        show_report(config, report)
    return ExitCode.FAILED if report.problems else ExitCode.OK


@chansup.command()
@config_option
@wait_option
@json_option
def reload(no_wait: bool, as_json: bool) -> int:
    """Deploy: replace every process by one of the new code.

    The config is read again, too. New processes start before old ones end. If the new code does
    not boot, the old code keeps serving, and the exit code is 1.
    """
    return _follow(find_client().reload(wait=not no_wait), "The rollout", as_json)


@chansup.command()
@config_option
@wait_option
@json_option
@click.argument("target", metavar="[POOL|SLOT]", required=False, shell_complete=complete_target)
def restart(target: str | None, no_wait: bool, as_json: bool) -> int:
    """Replace the processes of a pool, of a slot, or all.

    The config is not read again. "All" leaves out programs that a reload keeps, and an interface
    that relays: name them.
    """
    if target == "":
        raise click.BadParameter("the name of a pool or slot is empty", param_hint="POOL|SLOT")
    return _follow(find_client().restart(target, wait=not no_wait), "The restart", as_json)


@chansup.command()
@config_option
@wait_option
@json_option
@click.argument("change", metavar="POOL=N")
def scale(change: str, no_wait: bool, as_json: bool) -> int:
    """Run N processes of a pool.

    The number holds until the config next changes it.
    """
    pool, _, number = change.partition("=")
    if not pool or not (number.isascii() and number.isdigit()):
        raise click.UsageError(f"expected POOL=N, as in web=4, not {change!r}")
    return _follow(find_client().scale(pool, int(number), wait=not no_wait), "The change", as_json)


@chansup.command()
@config_option
@wait_option
@json_option
def stop(no_wait: bool, as_json: bool) -> int:
    """Stop everything in order, the supervisor last.

    Processes finish what they hold.
    """
    return _follow(find_client().stop(wait=not no_wait), "The stop", as_json)


@chansup.command()
@config_option
@json_option
@click.option("-w", "--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> int:
    """Show pools, slots and the rollout under way."""
    client = find_client()
    if as_json:
        from chansup.protocol import encoding

        for current in _repeated(client) if watch else [client.status()]:
            click.echo(encoding.encode_for_others(current))
    else:
        from chansup.cli.status_view import show_status, watch_status

        if watch and sys.stdout.isatty():
            watch_status(_repeated(client))
        else:
            for current in _repeated(client) if watch else [client.status()]:
                show_status(current)
    return ExitCode.OK


@chansup.command()
@config_option
@json_option
@click.option("-f", "--follow", is_flag=True, help="Continue with new lines, until Ctrl-C.")
@click.option(
    "-n", "--lines", default=100, metavar="LINES", type=click.IntRange(0), show_default=True,
    help="How many recent lines.",
)  # fmt: skip
@click.argument("target", metavar="[POOL|SLOT]", required=False, shell_complete=complete_target)
def logs(target: str | None, lines: int, follow: bool, as_json: bool) -> int:
    """Show what a pool, a slot or all have printed lately."""
    stream = find_client().logs(target, lines, follow)
    if as_json:
        from chansup.protocol import encoding

        for line in stream:
            click.echo(encoding.encode_for_others(line))
    else:
        from chansup.cli.log_printer import LogPrinter

        printer = LogPrinter(sys.stdout)
        for line in stream:
            printer.print(line)
    return ExitCode.OK


@chansup.command()
@config_option
@json_option
@click.option(
    "-s", "--seconds", default=10.0, metavar="SECONDS", type=click.FloatRange(1, 3600),
    show_default=True, help="For how long to measure.",
)  # fmt: skip
@click.option("-w", "--watch", is_flag=True, help="Measure again and again, until Ctrl-C.")
@click.argument("channel", metavar="[CHANNEL]", required=False, shell_complete=complete_channel)
def latency(channel: str | None, seconds: float, watch: bool, as_json: bool) -> int:
    """Measure how long messages to channel workers wait and take.

    It says whether the workers keep up. The exit code is 1 when they do not, or when nobody
    consumes a channel. Ctrl-C ends it early.
    """
    from chansup.cli.latency import table
    from chansup.cli.latency.measure import measure, measure_again_and_again
    from chansup.protocol import encoding

    client = find_client()
    on_terminal = sys.stdout.isatty() and not as_json
    if watch:
        each = measure_again_and_again(client, seconds, channel)
        if on_terminal:
            table.watch(each)
        for measured in each:
            click.echo(encoding.encode_for_others(measured) if as_json else table.plain(measured))
    with table.Countdown(seconds if on_terminal else None) as countdown:
        measured = measure(client, seconds, channel, countdown.show)
    if on_terminal:
        table.show(measured)
    else:
        click.echo(encoding.encode_for_others(measured) if as_json else table.plain(measured))
    return ExitCode.OK if measured.is_well else ExitCode.FAILED


@chansup.command()
@config_option
@click.option("--force", is_flag=True, help="Overwrite the file if there is one.")
@click.option("--stdout", is_flag=True, help="Print the file instead of writing it.")
def init(force: bool, stdout: bool) -> int:
    """Write a config file for the project in this directory.

    With -c FILE: for the project in the directory of that file.
    """
    from chansup.project import discover, notes, render, write

    config = config_path()
    project = discover(config.parent)
    if stdout:
        click.echo(render(project), nl=False)
    else:
        write(project, config, force)
        click.echo(f"Wrote {config}. Look it over, then: chansup check && chansup run")
    for note in notes(project):
        click.echo(note, err=True)
    return ExitCode.OK


@chansup.command()
@click.argument("page", metavar="[PAGE]", required=False)
def docs(page: str | None) -> int:
    """Show a page of the documentation, or the list of pages.

    The example config, the systemd unit and nginx's config are pages, too:
    chansup docs chansup.service.
    """
    from chansup.cli import documentation

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
@config_option
@json_option
def version(as_json: bool) -> int:
    """Show the version of chansup, and of the supervisor if one runs."""
    import platform

    document: dict[str, object] = {
        "version": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
    }
    try:
        document["supervisor"] = find_client().version()
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
            from chansup.protocol import encoding

            for event in events:
                click.echo(encoding.encode_for_others(event))
                code = event.exit_code if event.type == "result" else code
            return code
        from chansup.cli.progress import ProgressDisplay

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
