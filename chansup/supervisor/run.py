"""``chansup run``: from the config file to a running supervisor, and its exit code."""

import asyncio
import errno
import faulthandler
import logging
import os
import sys
from functools import partial
from pathlib import Path

from chansup.config import load
from chansup.errors import ChansupError
from chansup.protocol.launch import STACK_DUMP_SIGNAL
from chansup.supervisor.carry.holder import Holder
from chansup.supervisor.carry.limits import most_held
from chansup.supervisor.logs.log_writer import LogWriter
from chansup.supervisor.plan.building import build
from chansup.supervisor.plan.descriptors import raise_descriptor_limit
from chansup.supervisor.process.guard import Guard, new_run_id
from chansup.supervisor.process.notify_sockets import NotifySockets
from chansup.supervisor.process.processes import Processes
from chansup.supervisor.process.reaper import Reaper, become_subreaper
from chansup.supervisor.runtime import run_record
from chansup.supervisor.runtime.runtime import RuntimeDirectory, directory_for
from chansup.supervisor.runtime.whereabouts import require_none_elsewhere
from chansup.supervisor.signals.signal_reader import SignalReader
from chansup.supervisor.signals.terminal import Terminal
from chansup.supervisor.site import Site
from chansup.supervisor.sockets.addresses import Addresses
from chansup.supervisor.sockets.hub_socket import HubSocket
from chansup.supervisor.sockets.systemd import InheritedSockets, ServiceNotifier
from chansup.supervisor.sockets.worker_sockets import WorkerSockets
from chansup.supervisor.supervisor import MORE_DESCRIPTORS, Supervisor


def main(config_path: Path) -> int:
    """Run the site that `config_path` describes until it is stopped. Raises ChansupError."""
    faulthandler.enable()  # systemd's watchdog ends a service by SIGABRT: say where it stood
    faulthandler.register(STACK_DUMP_SIGNAL, all_threads=True)
    signals = SignalReader()  # lets that one through, if it came meanwhile
    service = ServiceNotifier.receive()
    inherited = InheritedSockets.receive()
    loaded = load.load(config_path, os.environ)
    configured = loaded.config.supervisor.runtime_directory
    runtime = RuntimeDirectory(directory_for(config_path, configured))
    if not _is_one_of_several(loaded):
        require_none_elsewhere(config_path, runtime.path, os.environ)
    runtime.open()
    try:
        runtime.leave_signposts(config_path, os.environ)
        with asyncio.Runner() as runner:
            runner.get_loop()
            return runner.run(_supervise(loaded, runtime, service, inherited, signals))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN):
            raise
        # A loop that could not be made whole complains when it is deleted.
        sys.unraisablehook = lambda complaint: None
        raise ChansupError(f"cannot run: {error.strerror}: {MORE_DESCRIPTORS}") from None
    finally:
        runtime.close()


def _is_one_of_several(loaded: load.Loaded) -> bool:
    """Whether the environment says which of the sites of one config file this is."""
    table = loaded.document.get("supervisor", {})
    return isinstance(table, dict) and "${" in str(table.get("runtime_directory", ""))


async def _supervise(
    loaded: load.Loaded,
    runtime: RuntimeDirectory,
    service: ServiceNotifier,
    inherited: InheritedSockets,
    signals: SignalReader,
) -> int:
    raise_descriptor_limit()
    become_subreaper()
    loop = asyncio.get_running_loop()
    environ = dict(os.environ)
    log_settings = loaded.config.log
    log = LogWriter(format=log_settings.format, level=log_settings.level)
    log.start()
    logging.getLogger().addHandler(_ToLog(log))
    former = runtime.run_record.former()
    if former is not None:
        log.say("a supervisor was killed, and so was its guard: ending what they left", "warning")
        await asyncio.to_thread(run_record.end, former)
    run = new_run_id()
    runtime.run_record.write(run)
    guard = Guard(run)
    warn = partial(log.say, level="warning")
    notify = NotifySockets(runtime.path, runtime.let_pass, warn)
    notify.clear()
    sockets = WorkerSockets(runtime.path, runtime.let_pass, warn)
    sockets.clear()
    hub = HubSocket(runtime.path, runtime.let_pass, warn)
    holder = Holder(lambda text, level="info": log.say(text, level), most_held())
    processes = Processes(log, run, guard, notify, sockets, hub, holder)
    reaper = Reaper(
        known=lambda pid: processes.knows(pid) or pid == guard.pid,
        on_known=processes.reap,
        spare=lambda: [] if guard.pid is None else [guard.pid],
    )
    supervisor: Supervisor | None = None

    def fail(reason: str) -> None:
        assert supervisor is not None
        supervisor.fail(reason)

    site = Site(
        build(1, loaded, environ),
        environ,
        processes,
        Addresses(loaded.path.parent, inherited),
        hub,
        log,
        fail,
    )
    supervisor = Supervisor(site, log, runtime, service, reaper, guard, Terminal())
    reaper.start(loop)
    signals.start(partial(supervisor.take_signal, survives=signals.survives_its_terminal))
    try:
        return await supervisor.run()
    finally:
        signals.stop()
        reaper.stop()
        notify.close()
        inherited.close()
        holder.close()
        log.close()


class _ToLog(logging.Handler):
    """Brings what libraries in the supervisor say into its own log."""

    def __init__(self, log: LogWriter) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._log.say(
            self.format(record), "error" if record.levelno >= logging.ERROR else "warning"
        )
