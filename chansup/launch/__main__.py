"""``python -m chansup.launch SERVER APPLICATION --slot POOL.N``: one server in this process.

The arguments are for those who read `ps`; the truth stands in the environment.
"""

import faulthandler
import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Protocol, cast

import msgspec

from chansup import private_parts
from chansup.config import certificates
from chansup.launch import application, forks, start_failures
from chansup.launch.child import Child, forget_systemd_variables
from chansup.launch.options import OptionProblem
from chansup.launch.warm_up import NotReadyError
from chansup.protocol import launch as protocol
from chansup.protocol import versions
from chansup.protocol.launch import STACK_DUMP_SIGNAL, Launch
from chansup.protocol.versions import LAYER, VersionError

EXIT_APPLICATION = 1  # the app could not be loaded
EXIT_USAGE = 2  # not started by a supervisor, or by one that this code does not understand
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: will never work, whatever the app does


class ServerModule(Protocol):
    """What each of the modules named after a server has."""

    PACKAGE: str

    def version(self) -> str:
        """Return the name and version of the server."""

    def check(self, given: dict[str, object], gateway: str) -> list[OptionProblem]:
        """Return the options that the server does not take."""

    def serve(self, child: Child) -> int:
        """Run the server until it was drained. Return the exit code."""


def main() -> int:
    """Receive the orders, run the server, return the exit code."""
    try:
        launch = protocol.receive()
    except KeyError:
        complain("this is what `chansup run` starts for each process; start that instead")
        return EXIT_USAGE
    except VersionError as error:
        complain(str(error))
        return EXIT_USAGE
    except msgspec.ValidationError as error:
        complain(f"malformed launch document: {error}: {versions.REMEDY}")
        return EXIT_USAGE
    if (obstacle := hub_obstacle(launch)) is not None:
        complain(obstacle)
        return EXIT_USAGE
    try:
        prepare(launch)
    except OSError as error:
        complain(f"cannot work in {launch.directory}: {error.strerror}: its user needs access")
        return EXIT_CONFIGURATION
    try:
        server = import_server(launch.server)
    except application.ServerError as error:
        complain(f"{launch.server}: {error}")
        return EXIT_CONFIGURATION
    problems = server.check(launch.options, launch.gateway)
    for problem in problems:
        complain(f"interface.options.{problem.name}: {problem.message}")
    if problems:
        return EXIT_CONFIGURATION
    faults = [*certificates.faults(launch.server, launch.options, Path())]
    for name, message in faults:
        complain(f"interface.options.{name}: {message}")
    return EXIT_APPLICATION if faults else serve(launch, server)  # a renewal may mend it


def serve(launch: Launch, server: ServerModule) -> int:
    """Run the server, return the exit code."""
    try:
        child = Child(launch)
    except VersionError as error:
        complain(str(error))
        return EXIT_USAGE
    try:
        code = server.serve(child)
        stand_down()
        return code
    except application.ApplicationError as error:
        sys.stderr.write(error.details)
        complain(f"{launch.application}: {error}")
        return EXIT_APPLICATION
    except (application.StartupError, NotReadyError) as error:
        complain(f"{launch.application}: {error}")
        return EXIT_APPLICATION
    except VersionError as error:
        complain(str(error))
        return EXIT_USAGE
    except application.ConfigurationError as error:
        complain(str(error))
        return EXIT_CONFIGURATION
    except Exception as error:
        its_own = not child.is_ready and launch.server in certificates.SERVERS
        if not its_own or start_failures.is_of_the_app(error, launch) or is_debugged():
            raise
        complain(start_failures.explain(error, launch, server.version()))
        return EXIT_APPLICATION


def prepare(launch: Launch) -> None:
    """Set up what must work before any code of the app or the server is imported."""
    faulthandler.enable()
    faulthandler.register(STACK_DUMP_SIGNAL, all_threads=True, chain=False)
    # Until it is ready there is nothing to finish: either signal ends the process at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    forks.let_go_of_signals()
    forget_systemd_variables()
    os.chdir(launch.directory)
    sys.path[0] = launch.directory


def hub_obstacle(launch: Launch) -> str | None:
    """Return why the app of this process cannot use the hub that runs, if that is so."""
    if launch.hub_speaks is None or launch.relay is not None:
        return None
    if versions.common(LAYER, *launch.hub_speaks) is not None:
        return None
    return (
        f"the hub speaks {versions.in_words(*launch.hub_speaks)} of the channel layer, and this "
        f"process {versions.in_words(LAYER.oldest, LAYER.newest)}: {versions.REMEDY}"
    )


def stand_down() -> None:
    """Call off the drain's last resort, unless a thread of the app could keep the process alive."""
    others = [thread for thread in threading.enumerate() if not thread.daemon]
    if others == [threading.main_thread()]:
        faulthandler.cancel_dump_traceback_later()


def import_server(name: str) -> ServerModule:
    """Import the launcher of a server. Raises ServerError when the server is not there.

    So it does for a version without the private parts that chansup uses.
    """
    if problem := private_parts.lacking(*private_parts.OF_SERVERS.get(name, ())):
        raise application.ServerError(problem)
    try:
        return cast(ServerModule, importlib.import_module(f"chansup.launch.{name}"))
    except ModuleNotFoundError as error:
        extra = "chansup" if name == "uvicorn" else f"chansup[{name}]"
        message = f'no module named "{error.name}": install "{extra}"'
        raise application.ServerError(message) from None


def is_debugged() -> bool:
    """Whether whoever started chansup wants to see tracebacks of it."""
    return bool(os.environ.get("CHANSUP_DEBUG"))


def complain(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"chansup: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
