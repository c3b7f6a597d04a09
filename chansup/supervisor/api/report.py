"""Putting what the site knows into the documents of `status`."""

import os
import time
from typing import Literal

from chansup import __version__
from chansup.config import carry
from chansup.protocol.scoreboard import IN_PROGRESS, LOOP_LAG, WEBSOCKETS_OPEN
from chansup.protocol.states import State
from chansup.protocol.status import (
    ChannelStatus,
    Consumption,
    DrainingStatus,
    HeldStatus,
    LayerStatus,
    Measurement,
    PoolStatus,
    QueueStatus,
    SlotStatus,
    Status,
)
from chansup.supervisor.carry.counters import ADOPTED, LOST, NOT_CARRIED, HolderReport
from chansup.supervisor.metrics.children import NO_POOL
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.roster import NO_ROW
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.site import Site

LINES_OF_COMPLAINT = 15  # that status shows of a process that crashed


def reasons_not_ready(site: Site) -> list[str]:
    """Return why the site cannot do its work; empty when it can."""
    if site.stopping:
        return ["the supervisor is stopping"]
    reasons = [
        f"task {name}: {site.task(name).status.state}"
        for name in site.generation.tasks
        if not site.task(name).done.is_set()
    ]
    for name, specification in site.generation.pools.items():
        pool = site.pools.get(name)
        if pool is None or (not pool.slots and site.desired_in(specification)):
            missing = ", ".join(site.dependencies.missing(specification.after))
            waits = f", waits for {missing}" if missing else ""
            reasons.append(f"{name}: not started yet{waits}")
        elif pool.ready < pool.enough:
            reasons.append(f"{name}: {pool.ready} of {pool.desired} processes ready")
    if "interface" in site.pools:
        slots = site.pools["interface"].slots
        serving = [slot.current for slot in slots if slot.serves and slot.current is not None]
        reasons += site.addresses.unreachable(serving)
    reasons += site.greetings.mute()
    reasons += site.not_accepting.values()
    return reasons


def summary(site: Site) -> str:
    """Return one line: ``generation 3: interface 2/2, redis 1/1``."""
    counts = ", ".join(f"{pool.name} {pool.ready}/{pool.desired}" for pool in site.pools.values())
    return f"generation {site.generation.number}: {counts}"


def status(site: Site, started: float, admin: str | None, dropped: int) -> Status:
    """Return the whole state."""
    reasons = reasons_not_ready(site)
    available = all(pool.available.is_set() for pool in site.pools.values())
    state: Literal["starting", "running", "stopping"] = "running" if available else "starting"
    interface = "interface" in site.pools
    queues = {name: site.recent.queue(name, row) for name, row in relayed(site).items()}
    consumed = consumption(site)
    channels = site.recent.channels(consumed)
    websockets = _websockets(site)
    layer = site.recent.layer(consumed)
    return Status(
        version=__version__,
        pid=os.getpid(),
        config=str(site.generation.loaded.path),
        directory=str(site.generation.directory),
        generation=site.generation.number,
        state="stopping" if site.stopping else state,
        ready=not reasons,
        reasons=reasons,
        started=started,
        addresses=site.addresses.names(),
        steering=("steered" if site.addresses.steered else "shared") if interface else "",
        admin=admin,
        rollout=site.rollout.status() if site.rollout else None,
        pools=[
            _pool(
                pool,
                site.desired_in(pool.specification),
                queues.get(pool.name),
                channels.get(pool.name, []),
                layer,
                websockets,
            )
            for pool in site.pools.values()
        ],
        tasks=[site.task(name).status for name in _present_tasks(site)],
        log_lines_dropped=dropped,
        files_restored=site.files_restored,
        obstacles=list(site.obstacles.values()),
    )


def _present_tasks(site: Site) -> list[str]:
    """Return the tasks of the newest generation, and those of one that is being rolled out."""
    rolled_out = site.rollout.generation.tasks if site.rollout and site.rollout.runs else {}
    return list({**site.generation.tasks, **rolled_out})


def measurements(site: Site) -> list[Measurement]:
    """Return the numbers of every slot."""
    return [
        Measurement(
            pool=pool.name,
            slot=slot.name,
            state=slot.state,
            pid=slot.current.pid if slot.current else None,
            started=slot.current.started if slot.current else None,
            restarts=dict(slot.restarts),
            last_exit_code=slot.last_exit.code if slot.last_exit else None,
            cells=slot.cells(),
            accept_stalls=slot.accept_stalls,
        )
        for pool in site.pools.values()
        for slot in pool.slots
    ]


def relayed(site: Site) -> dict[str, list[float]]:
    """Return what relays counted, by pool of app workers; nothing outside relay mode."""
    living = site.processes.alive()
    if not site.generation.relays and all(one.relay_board is None for one in living):
        return {}
    return site.processes.ledger.relayed({NO_POOL: NO_ROW, **site.roster.rows}, living)


def carried(site: Site) -> HolderReport | None:
    """Return what the holder of WebSockets counted; None if nothing was ever held, or will be."""
    specification = site.generation.pools.get("interface")
    found = site.processes.holder.report()
    carries = specification is not None and specification.carries
    return found if carries or found.held or found.counters.of(ADOPTED) else None


def consumption(site: Site) -> Consumption:
    """Return what channel workers and the hub counted."""
    return site.processes.ledger.consumption(site.pools.values(), site.processes.alive())


def _pool(
    pool: Pool,
    desired: int,
    queue: QueueStatus | None,
    channels: list[ChannelStatus],
    layer: LayerStatus | None,
    websockets: HeldStatus | None,
) -> PoolStatus:
    return PoolStatus(
        name=pool.name,
        kind=pool.kind,
        command=pool.specification.label,
        desired=pool.desired if pool.started else desired,
        ready=pool.ready,
        slots=[_slot(slot) for slot in pool.slots],
        queue=queue if pool.specification.serves else None,
        channels=channels,
        layer=layer if pool.kind == "hub" else None,
        websockets=websockets if pool.kind == "interface" else None,
    )


def _websockets(site: Site) -> HeldStatus | None:
    """Return what becomes of WebSockets of direct mode; None if nothing was asked for."""
    config, holder = site.generation.config, site.processes.holder
    interface = config.interface
    if interface is None or not carry.is_wanted(interface):
        return None
    obstacle = carry.obstacle(config)
    if obstacle and not carry.has_websockets(config):
        return None
    return HeldStatus(
        held=holder.held,
        waiting=holder.waiting,
        limit=holder.limit,
        moved=holder.counters.of(ADOPTED),
        lost=holder.counters.of(LOST),
        not_carried=holder.counters.of(NOT_CARRIED),
        obstacle=obstacle,
        only_deploys=holder.why_no_crash,
    )


def _slot(slot: Slot) -> SlotStatus:
    process = slot.current
    cells = slot.cells()
    troubled = slot.state in (State.BACKOFF, State.FAILED, State.STARTING)
    return SlotStatus(
        name=slot.name,
        state=slot.state,
        pid=process.pid if process else None,
        generation=process.generation.number if process else None,
        started=process.started if process else None,
        restarts=dict(slot.restarts),
        last_exit=str(slot.last_exit) if slot.last_exit else None,
        last_exit_code=slot.last_exit.code if slot.last_exit else None,
        status=process.status if process else None,
        retry_in=max(0.0, slot.retry_at - time.time()) if slot.retry_at else None,
        output=slot.complaint[-LINES_OF_COMPLAINT:] if troubled else [],
        requests_in_progress=int(cells[IN_PROGRESS]),
        websockets_open=int(cells[WEBSOCKETS_OPEN]),
        loop_lag=cells[LOOP_LAG] if process and process.scoreboard else None,
        draining=[
            DrainingStatus(one.pid, one.generation.number, one.draining_since or one.started)
            for one in slot.draining
        ],
    )
