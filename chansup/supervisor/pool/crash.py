"""What the end of a process that nobody asked for means, by how it came."""

from chansup.supervisor.process.process import Process

_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: a launcher says that its options are wrong
_TOLD = {
    "boot": "did not become ready",
    "hang": "hung and was killed",
    "exit": "ended by itself",
    "crash": "crashed",
}


def reason(process: Process) -> str:
    """Return the reason of the restart that follows."""
    if process.hung:
        return "hang"
    if not process.ready.is_set():
        return "boot"
    return "exit" if process.exit is not None and process.exit.code == 0 else "crash"


def told(process: Process) -> str:
    """Return for people what happened."""
    return f"{_TOLD[reason(process)]} ({process.exit})"


def is_final(process: Process) -> bool:
    """Whether the next one would end in the same way, until the config changes."""
    if not process.specification.launcher or process.ready.is_set() or process.exit is None:
        return False
    return process.exit.code == _CONFIGURATION


def went_into_the_background(process: Process) -> bool:
    """Whether it ended well and what it had started runs on."""
    return process.remains is not None and process.exit is not None and process.exit.code == 0
