"""Shows the status of a site, as a table that fits the terminal.

rich is imported when something needs it. What processes print is never trusted: control characters
do not reach the terminal.
"""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import click

from chansup.cli.console import open_console
from chansup.protocol.status import PoolStatus, SlotStatus, Status, busiest, failures
from chansup.text import clean, duration

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.text import Text

STATE_STYLES = {
    "READY": "green",
    "STARTING": "cyan",
    "DRAINING": "yellow",
    "BACKOFF": "bold red",
    "FAILED": "bold red",
}


def show_status(status: Status) -> None:
    """Print the status once."""
    console = open_console()
    if console.is_terminal:
        console.print(_status_view(status, console))
        return
    with console.capture() as captured:
        console.print(_status_view(status, console))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def watch_status(statuses: Iterable[Status]) -> None:
    """Show each status in the place of the one before, until the user interrupts."""
    from rich.live import Live

    console = open_console()
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        for status in statuses:
            live.update(_status_view(status, console), refresh=True)


def _status_view(status: Status, console: "Console") -> "Group":
    from rich.console import Group

    now = time.time()
    parts: list[Text | Group] = [*_headline(status, now)]
    if status.pools:
        parts.append(_slot_table(status.pools, now, console.width))
    parts.extend(_tasks(status))
    for pool in status.pools:
        for slot in pool.slots:
            if slot.output:
                parts.extend(_output(slot.name, slot.output))
    for task in status.tasks:
        if task.output:
            parts.extend(_output(task.name, task.output))
    return Group(*parts)


def _headline(status: Status, now: float) -> "list[Text]":
    from rich.text import Text

    colour = {"running": "green" if status.ready else "yellow"}.get(status.state, "yellow")
    state = status.state if status.ready or status.state != "running" else "running, not ready"
    first = Text.assemble(
        ("chansup ", "bold"), (state, f"bold {colour}"),
        (f"  generation {status.generation}", ""),
        (f"  up {duration(now - status.started)}", ""),
        (f"  pid {status.pid}", "dim"), (f"  version {clean(status.version)}", "dim"),
    )  # fmt: skip
    lines = [first, Text(f"config  {clean(status.config)}", "dim")]
    if status.addresses:
        steering = f" ({status.steering})" if status.steering else ""
        lines.append(Text(f"serving {clean(', '.join(status.addresses))}{steering}"))
    if status.admin:
        lines.append(Text(f"admin   {clean(status.admin)}", "dim"))
    lines.extend(Text(f"waiting {clean(reason)}", "yellow") for reason in status.reasons)
    if rollout := status.rollout:
        colours = {"failed": "red", "aborted": "red", "running": "cyan", "succeeded": "green"}
        text = f"rollout to generation {rollout.generation}: "
        what = f"{rollout.outcome}, {rollout.done} of {rollout.total} replaced"
        ended = f" in {duration(rollout.duration)}"
        message = f": {clean(rollout.message)}" if rollout.message else ""
        colour = colours.get(rollout.outcome, "")
        lines.append(Text.assemble(text, (what, colour), ended, message))
    for pool in status.pools:
        if pool.queue is not None:
            style = "yellow" if pool.queue.waiting else "dim"
            lines.append(Text(f"queue   {clean(pool.name)}: {pool.queue.in_words()}", style))
        if (websockets := pool.websockets) is not None:
            troubled = websockets.waiting or websockets.only_deploys
            style = "yellow" if troubled else "dim"
            lines.append(Text(f"held    {clean(pool.name)}: {websockets.in_words()}", style))
        lines.extend(_channels(pool))
        if pool.layer is not None:
            style = "yellow" if pool.layer.dropped else "dim"
            lines.append(Text(f"hub     {pool.layer.in_words()}", style))
    lines += [Text(one, "red") for one in status.obstacles]
    if status.files_restored:
        lines.append(Text(f"{status.files_restored} files vanished and were made again", "yellow"))
    if status.log_lines_dropped:
        lines.append(Text(f"{status.log_lines_dropped} log lines dropped", "yellow"))
    lines.append(Text(""))
    return lines


def _channels(pool: PoolStatus) -> "Iterable[Text]":
    from rich.text import Text

    shown, left_out = busiest(pool.channels)
    for channel in shown:
        name = clean(channel.name)
        if channel.name != pool.name:
            name += f" ({clean(pool.name)})"
        style = "yellow" if channel.waiting or channel.failed else "dim"
        yield Text(f"channel {name}: {channel.in_words()}", style)
    if left_out:
        yield Text(f"        and {left_out} more of {clean(pool.name)}", "dim")


# Columns in the order in which a narrow terminal loses them, the last one first.
_COLUMNS = ("slot", "state", "pid", "up", "failures", "in flight", "websockets", "gen",
            "last exit", "status")  # fmt: skip
_SHOWN = ("slot", "state", "pid", "gen", "up", "failures", "in flight", "websockets",
          "last exit", "status")  # fmt: skip
_NUMBERS = {"pid", "gen", "up", "failures", "in flight", "websockets"}
_GAP = 2  # columns between two cells
_SHORTEST_NAME = 10  # columns
_NAME_END = 4  # characters of a shortened name that stay, with the number of the slot


def _slot_table(pools: Sequence[PoolStatus], now: float, width: int) -> "Group":
    """Return the slots of all pools. A column that does not fit is left out, never cut.

    Long names are: they lose their middle before state and pid lose their place. Why a process
    ended last is told below the table then.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = list(_rows(pools, now))
    _shorten_names(rows, width)
    shown = _columns_that_fit(rows, width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim", pad_edge=False)
    for name in shown:
        justify: Literal["right", "left"] = "right" if name in _NUMBERS else "left"
        # Only the state may need a second line, on the narrowest terminals.
        table.add_column(name, justify=justify, no_wrap=name != "state", min_width=len(name))
    for row in rows:
        table.add_row(*(row.get(name, Text("")) for name in shown))
    if "last exit" in shown:
        return Group(table)
    ended = [
        Text(f"{clean(slot.name)} ended last: {clean(slot.last_exit)}", "yellow")
        for pool in pools
        for slot in pool.slots
        if slot.last_exit and (slot.state in ("BACKOFF", "FAILED") or failures(slot.restarts))
    ]
    return Group(table, *ended)


def _rows(pools: Sequence[PoolStatus], now: float) -> "Iterable[dict[str, Text]]":
    from rich.text import Text

    for pool in pools:
        complete = pool.ready >= pool.desired
        ready = (f"{pool.ready}/{pool.desired} ready", "green" if complete else "bold red")
        yield {"slot": Text(clean(pool.name), "bold"), "state": Text(*ready)}
        for slot in pool.slots:
            yield _slot_cells(slot, now, serves=not pool.channels)
            for old in slot.draining:
                yield {
                    "slot": Text("    replaced", "dim"),
                    "state": Text("draining", "yellow"),
                    "pid": Text(str(old.pid), "dim"),
                    "gen": Text(str(old.generation), "dim"),
                    "up": Text(duration(now - old.since), "dim"),
                }


def _shorten_names(rows: "Sequence[dict[str, Text]]", width: int) -> None:
    """Shorten the names of slots as far as state and pid need it. The number at the end stays."""
    others = [
        max([len(column), *(row[column].cell_len for row in rows if column in row)]) + _GAP
        for column in ("state", "pid")
    ]
    room = max(width - sum(others), _SHORTEST_NAME)
    for row in rows:
        name = row["slot"]
        if name.cell_len > room:
            end = name.plain[-_NAME_END:]
            name.truncate(room - len(end) - 1)
            name.append(f"…{end}")


def _columns_that_fit(rows: "Sequence[dict[str, Text]]", width: int) -> list[str]:
    """Return the columns to show, in the order in which they stand."""
    taken = -_GAP
    fitting = {"slot", "state"}
    for name in _COLUMNS:
        cells = [row[name].cell_len for row in rows if name in row]
        if name == "status" and not any(cells):
            break
        taken += max([len(name), *cells]) + _GAP
        if taken > width and name not in fitting:
            break
        fitting.add(name)
    return [name for name in _SHOWN if name in fitting]


def _slot_cells(slot: SlotStatus, now: float, *, serves: bool) -> "dict[str, Text]":
    from rich.text import Text

    state = clean(slot.state).lower()
    if slot.retry_in is not None:
        state += f", retry in {duration(slot.retry_in + 0.999)}"
    failed = sum(failures(slot.restarts).values())
    requests, websockets = str(slot.requests_in_progress), str(slot.websockets_open)
    if (slot.loop_lag is None or not serves) and requests == websockets == "0":
        requests = websockets = ""  # a process that counts nothing
    return {
        "slot": Text(f"  {clean(slot.name)}"),
        "state": Text(state, STATE_STYLES.get(slot.state, "dim")),
        "pid": Text("" if slot.pid is None else str(slot.pid), "dim"),
        "gen": Text("" if slot.generation is None else str(slot.generation)),
        "up": Text("" if slot.started is None else duration(now - slot.started)),
        "failures": Text(str(failed), "yellow" if failed else "dim"),
        "in flight": Text(requests, "dim" if requests == "0" else ""),
        "websockets": Text(websockets, "dim" if websockets == "0" else ""),
        "last exit": Text(clean(slot.last_exit or "")),
        "status": Text(clean(slot.status or ""), "dim"),
    }


def _tasks(status: Status) -> "list[Text]":
    from rich.text import Text

    colours = {"failed": "bold red", "succeeded": "green", "running": "cyan"}
    lines = [Text("")] if status.tasks else []
    for task in status.tasks:
        took = f" in {duration(task.duration)}" if task.duration is not None else ""
        reason = f": {clean(task.last_exit or '')}" if task.state == "failed" else ""
        if task.state == "running" and task.last_exit is not None:
            took = f", the run before ended{took} with {clean(task.last_exit)}"
        colour = colours.get(task.state, "dim")
        lines.append(
            Text.assemble(f"task {clean(task.name)}  ", (task.state, colour), took, reason)
        )
    return lines


def _output(name: str, lines: Sequence[str]) -> "list[Text]":
    from rich.text import Text

    return [Text(""), Text(f"{clean(name)} printed last:", "bold red"),
            *(Text(f"  {clean(line)}") for line in lines)]  # fmt: skip
