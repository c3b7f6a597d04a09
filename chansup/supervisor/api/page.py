"""The status page: HTML made here, nothing from other hosts, no scripts.

Its one style sheet is allowed by its hash, so even text that got past the escaping could not act.
"""

import base64
import hashlib
import time
from html import escape as escape_html
from importlib import resources
from string import Template

from chansup.protocol.status import (
    ChannelStatus,
    DrainingStatus,
    PoolStatus,
    RolloutStatus,
    SlotStatus,
    Status,
    TaskStatus,
    busiest,
    failures,
)
from chansup.supervisor.api.paths import without_folders
from chansup.text import clean, duration, short_duration

REFRESH = 5  # seconds between two loads of the page
TONES = {
    "ready": "good", "running": "good", "succeeded": "good",
    "starting": "busy", "waiting": "busy", "under way": "busy",
    "draining": "warn", "stopping": "warn", "superseded": "warn",
    "backoff": "bad", "failed": "bad", "aborted": "bad", "not ready": "bad",
}  # fmt: skip


def render(status: Status, refresh: bool = True) -> str:
    """Return the page."""
    now = time.time()
    state = status.state if status.ready or status.state != "running" else "not ready"
    return _TEMPLATE.substitute(
        title=f"{escape(state)} · chansup",
        refresh=f'<meta http-equiv="refresh" content="{REFRESH}">' if refresh else "",
        style=_STYLE,
        content="\n".join(_content(status, state, now, refresh)),
    )


def escape(text: str) -> str:
    """Return text as HTML, without control characters."""
    return escape_html(clean(text))


def style_source() -> bytes:
    """Return the Content-Security-Policy source of the page's style sheet."""
    digest = hashlib.sha256(_STYLE.encode()).digest()
    return b"'sha256-" + base64.b64encode(digest) + b"'"


def _parts() -> tuple[Template, str]:
    """Return the template and its style sheet."""
    folder = resources.files("chansup.supervisor.api")
    page = (folder / "page.html").read_text(encoding="utf-8")
    begin, end = page.index("<style>") + len("<style>"), page.index("</style>")
    return Template(page[:begin] + "$style" + page[end:]), page[begin:end]


_TEMPLATE, _STYLE = _parts()  # at once: an upgrade must not change it under what fills it in


def _content(status: Status, state: str, now: float, refresh: bool) -> list[str]:
    slots = [slot for pool in status.pools for slot in pool.slots]
    # What passes through an interface is counted there; behind a relay the app counts it again.
    counting = [
        slot for pool in status.pools if pool.kind == "interface" for slot in pool.slots
    ] or slots
    lags = [slot.loop_lag for slot in slots if slot.loop_lag is not None]
    tiles = [
        ("up", duration(now - status.started)),
        ("generation", str(status.generation)),
        ("requests now", _number(sum(slot.requests_in_progress for slot in counting))),
        ("WebSockets", _number(sum(slot.websockets_open for slot in counting))),
        ("failures", _number(sum(sum(failures(slot.restarts).values()) for slot in slots))),
        ("worst loop lag", short_duration(max(lags)) if lags else "–"),
    ]
    parts = [
        _header(status, state),
        *_reasons(status),
        '<dl class="tiles">',
        *(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles),
        "</dl>",
    ]
    if status.rollout is not None:
        parts.append(_rollout(status.rollout))
    parts.extend(_pool(pool, now) for pool in status.pools)
    if status.tasks:
        parts.append(_task_table(status.tasks, now))
    dropped = status.log_lines_dropped
    notes = [f"version {escape(status.version)}"]
    if status.steering:
        notes.append(f"listeners {escape(status.steering)}")
    if dropped:
        notes.append(f"{_number(dropped)} log lines dropped")
    moment = time.strftime("%H:%M:%S %Z", time.localtime(now))
    again = (
        f'{moment}, every {REFRESH} s · <a href="/?refresh=0">pause</a>'
        if refresh
        else f'{moment} · <a href="/">continue</a>'
    )
    links = '<a href="/healthz">healthz</a> · <a href="/metrics">metrics</a>'
    parts.append(f"<footer>{' · '.join(notes)} · {links} · {again}</footer>")
    return parts


def _header(status: Status, state: str) -> str:
    where = escape(", ".join(map(without_folders, status.addresses)))
    return f'<header><h1>chansup</h1>{_badge(state)}<span class="where">{where}</span></header>'


def _reasons(status: Status) -> list[str]:
    if not status.reasons:
        return []
    items = "".join(f"<li>{escape(without_folders(reason))}</li>" for reason in status.reasons)
    return [f'<ul class="reasons">{items}</ul>']


def _rollout(rollout: RolloutStatus) -> str:
    total = max(rollout.total, 1)
    return (
        f'<section class="rollout"><h2>Rollout to generation {rollout.generation} '
        f"{_badge('under way' if rollout.outcome == 'running' else rollout.outcome)}</h2>"
        f'<progress max="{total}" value="{rollout.done}"></progress>'
        f"<p>{rollout.done} of {rollout.total} replaced, {duration(rollout.duration)}"
        f"{'; chansup status says why' if rollout.outcome == 'failed' else ''}</p></section>"
    )


def _pool(pool: PoolStatus, now: float) -> str:
    tone = "good" if pool.ready >= pool.desired else "bad"
    rows = "".join(_slot(slot, now, serves=not pool.channels) for slot in pool.slots)
    kind = f" <small>{escape(pool.kind)}</small>" if pool.kind != pool.name else ""
    return (
        f"<section><h2>{escape(pool.name)}{kind} "
        f'<span class="badge {tone}">{pool.ready}/{pool.desired} ready</span></h2>{_queue(pool)}'
        f"{_channels(pool)}"
        '<table class="slots"><thead><tr><th>slot<th>state<th class="n">up<th class="n">in flight'
        '<th class="n">WebSockets<th class="n">failures<th class="n">lag'
        '<th class="n">gen<th class="n">pid<th>last exit</thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _queue(pool: PoolStatus) -> str:
    queue = pool.queue or pool.layer or pool.websockets
    return f"<p>{escape(queue.in_words())}</p>" if queue is not None else ""


def _channels(pool: PoolStatus) -> str:
    if not pool.channels:
        return ""
    shown, left_out = busiest(pool.channels)
    rows = "".join(map(_channel, shown))
    more = f"<p>and {left_out} more</p>" if left_out else ""
    return (
        '<table class="channels"><thead><tr><th>channel<th class="n">waiting<th class="n">oldest'
        '<th class="n">in hand<th class="n">done, 1 min<th class="n">failed'
        f'<th class="n">95 % waited at most</thead><tbody>{rows}</tbody></table>{more}'
    )


def _channel(channel: ChannelStatus) -> str:
    cells = {
        "waiting": "–" if channel.waiting is None else _number(channel.waiting),
        "oldest": short_duration(channel.oldest) if channel.waiting and channel.oldest else "",
        "in hand": _number(channel.in_flight),
        "done": _number(channel.handled),
        "failed": _number(channel.failed),
        "95 %": "–" if channel.at_most is None else short_duration(channel.at_most),
    }
    return f"<tr><th>{escape(channel.name)}{_cells(cells)}</tr>"


def _slot(slot: SlotStatus, now: float, *, serves: bool) -> str:
    retry = f" in {duration(slot.retry_in + 0.999)}" if slot.retry_in is not None else ""
    beats = slot.loop_lag is not None and serves
    counts = beats or slot.requests_in_progress or slot.websockets_open
    reasons = ", ".join(f"{count} {name}" for name, count in failures(slot.restarts).items())
    row = _row(
        slot.name,
        _badge(slot.state.lower(), retry),
        {
            "up": "" if slot.started is None else duration(now - slot.started),
            "in flight": _number(slot.requests_in_progress) if counts else "",
            "WebSockets": _number(slot.websockets_open) if counts else "",
            "failures": reasons or "0",
            "lag": "" if slot.loop_lag is None else short_duration(slot.loop_lag),
            "gen": "" if slot.generation is None else str(slot.generation),
            "pid": "" if slot.pid is None else str(slot.pid),
        },
        slot.last_exit,
    )
    return row + "".join(_draining(old, now) for old in slot.draining)


def _draining(old: DrainingStatus, now: float) -> str:
    cells = dict.fromkeys(("up", "in flight", "WebSockets", "failures", "lag"), "")
    cells |= {"up": duration(now - old.since), "gen": str(old.generation), "pid": str(old.pid)}
    return _row("replaced", _badge("draining"), cells, None, "old")


def _task_table(tasks: list[TaskStatus], now: float) -> str:
    rows = "".join(_task(task, now) for task in tasks)
    return (
        '<section><h2>Tasks</h2><table><thead><tr><th>task<th>state<th class="n">took'
        f'<th class="n">ended<th>last exit</thead><tbody>{rows}</tbody></table></section>'
    )


def _task(task: TaskStatus, now: float) -> str:
    cells = {
        "took": "" if task.duration is None else duration(task.duration),
        "ended": "" if task.finished is None else f"{duration(now - task.finished)} ago",
    }
    return _row(task.name, _badge(task.state), cells, task.last_exit)


def _row(
    name: str, state: str, cells: dict[str, str], last_exit: str | None, kind: str = ""
) -> str:
    """Return one row; `state` is HTML already, everything else is escaped here."""
    columns = _cells(cells)
    last = f'<td data-name="last exit">{escape(last_exit or "")}'
    return f'<tr class="{kind}"><th>{escape(name)}<td>{state}{columns}{last}</tr>'


def _cells(cells: dict[str, str]) -> str:
    return "".join(
        f'<td class="n{" zero" if value == "0" else ""}" data-name="{column}">{escape(value)}'
        for column, value in cells.items()
    )


def _badge(text: str, more: str = "") -> str:
    return f'<span class="badge {TONES.get(text, "")}">{escape(text)}{escape(more)}</span>'


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")
