"""`python -m chansup.layer.hub --socket PATH`: runs a hub until it is told to end."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import pwd
import resource
import signal
import socket
import sys
from collections.abc import Callable

from chansup.config import size
from chansup.errors import ChansupError
from chansup.layer.hub import ledger, listening, takeover
from chansup.layer.hub.ledger import Ledger
from chansup.layer.hub.limits import Limits
from chansup.layer.hub.listening import ListeningError
from chansup.layer.hub.server import Server
from chansup.protocol import notify
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.versions import VersionError

logger = logging.getLogger("chansup.layer.hub")

_LEAST_MEMORY = 2**20
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_OWN_FILES = 64  # that the hub has open beside its clients


def main() -> int:
    """Run the hub. Return the exit code."""
    arguments = _parser().parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        users = frozenset((os.geteuid(), 0, *map(_user_id, arguments.user)))
        limits = Limits(
            memory=_bytes(arguments.memory),
            connections=arguments.connections,
        )
        _permit_files(limits.connections + _OWN_FILES)
        bulletin = _bulletin(arguments.report) if arguments.report is not None else None
        received = None
        if arguments.takeover:
            proof = arguments.descriptor if arguments.proof is None else arguments.proof
            received = _take_over(arguments.former or arguments.socket, proof)
        if arguments.descriptor is not None:
            listener = _inherited(arguments.descriptor)
        elif received is not None:
            listener = received.listener
        else:
            listener = listening.listen(arguments.socket)
        kept = _ledger(arguments.ledger, arguments.socket, limits.connections)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            handed_over = runner.run(_serve(listener, limits, users, received, bulletin, kept))
    except ChansupError as error:
        print(f"chansup: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    if not handed_over and arguments.descriptor is None:
        listening.remove(arguments.socket, listener)
    listener.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chansup.layer.hub",
        description="Keeps the queues and groups of chansup's own channel layer.",
    )
    parser.add_argument("--socket", required=True, metavar="PATH", help="where to listen")
    parser.add_argument(
        "--descriptor", type=int, metavar="N", help="an inherited socket that listens there already"
    )
    parser.add_argument(
        "--takeover", action="store_true", help="replace the hub that runs there, with its queues"
    )
    parser.add_argument(
        "--former", metavar="PATH", help="where that hub listens, if not at the same path"
    )
    parser.add_argument(
        "--proof", type=int, metavar="N", help="an inherited copy of that hub's listening socket"
    )
    parser.add_argument(
        "--report", type=int, metavar="N", help="an inherited bulletin to write counts into"
    )
    parser.add_argument(
        "--ledger", type=int, metavar="N",
        help="an inherited file that tells of the hub before (default: a file beside the socket)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", default="256M", metavar="SIZE", help="what may be queued in all (default: 256M)"
    )
    parser.add_argument(
        "--connections", type=int, default=1024, metavar="N", help="clients at most (default: 1024)"
    )
    parser.add_argument(
        "--user", action="append", default=[], metavar="NAME",
        help="a user whose processes may connect, beside the hub's own and root",
    )  # fmt: skip
    return parser


def _bytes(text: str) -> int:
    try:
        found = size.parse(text)
    except ValueError as error:
        raise ListeningError(f"--memory: {error}") from None
    if found < _LEAST_MEMORY:
        raise ListeningError(f"--memory {text}: expected a size of at least 1M, like 256M")
    return found


def _permit_files(needed: int) -> None:
    """Raise the limit of open files to what clients need, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    found = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, found), hard))
    if found <= _OWN_FILES:
        logger.warning(
            "the limit of open files (ulimit -Hn) is %d, and the hub keeps up to %d for itself: few"
            " clients or none can connect. Raise it (LimitNOFILE= in a systemd unit)",
            found, _OWN_FILES,
        )  # fmt: skip
    elif found < needed:
        logger.warning(
            "%d clients at most, and not %d: the limit of open files (ulimit -Hn) is %d",
            found - _OWN_FILES, needed - _OWN_FILES, found,
        )  # fmt: skip


def _user_id(name: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ListeningError(f"--user {name}: unknown user, name one of this machine") from None


def _inherited(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise ListeningError(
            f"--descriptor {descriptor}: expected an inherited listening socket ({error.strerror})"
        ) from None


def _bulletin(descriptor: int) -> Bulletin:
    try:
        return Bulletin(descriptor)
    except VersionError as error:
        raise ListeningError(str(error)) from None
    except (OSError, ValueError) as error:
        raise ListeningError(
            f"--report {descriptor}: expected an inherited bulletin ({error})"
        ) from None


def _ledger(descriptor: int | None, path: str, connections: int) -> Ledger:
    if descriptor is None:
        return ledger.beside(path, connections)
    try:
        return ledger.inherited(descriptor, connections)
    except (OSError, ValueError) as error:
        raise ListeningError(
            f"--ledger {descriptor}: expected an inherited file ({error})"
        ) from None


def _take_over(path: str, inherited: int | None) -> takeover.Received | None:
    """Return what the hub there gives, or None if there is none.

    With an inherited socket the supervisor sees to it that the other hub is not one that hangs, and
    clients wait in the queue of the socket: better to begin empty than not at all.
    """
    try:
        return takeover.take(path, inherited)
    except (FileNotFoundError, ConnectionRefusedError):
        why = "no hub runs there"
    except TimeoutError:
        why = "the hub there does not answer"
        if inherited is None:
            raise ListeningError(f"cannot take over from the hub at {path}: {why}") from None
        notify.send({notify.LOST: "the former hub did not answer"}, patience=1.0)
    except OSError as error:
        raise ListeningError(f"cannot take over from the hub at {path}: {error}") from None
    logger.warning("nothing to take over at %s: %s. Beginning with empty queues", path, why)
    return None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(
    listener: socket.socket,
    limits: Limits,
    users: frozenset[int],
    received: takeover.Received | None,
    bulletin: Bulletin | None,
    kept: Ledger,
) -> bool:
    loop = asyncio.get_running_loop()
    snapshot = received.snapshot if received is not None else None
    server = Server(listener, limits, users, snapshot, bulletin, kept)
    if received is not None:
        received.confirm()  # blocks: no client may be accepted before
        kept.claim()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, _end, server)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # nearly nothing here refers to itself
    if bulletin is not None:
        bulletin.beat()  # the first one says, as READY=1 does, that it is the hub now
    with contextlib.suppress(OSError):
        notify.send({"READY": "1"}, patience=1.0)
    handed_over = await server.ended
    # It ends already; the loop takes its handlers along, and a signal would count as a crash.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    if not handed_over:
        notify.send({"STOPPING": "1"})
        if left := server.store.unread():
            what = "1 message is" if left == 1 else f"{left} messages are"
            logger.warning("the hub ends, and %s lost that nobody has read yet", what)
    server.close()
    return handed_over


def _end(server: Server) -> None:
    if not server.ended.done():
        server.ended.set_result(False)


if __name__ == "__main__":
    sys.exit(main())
