"""Finds the supervisor of a config file, and asks it over its control socket."""

import http.client
import json
import os
import pwd
import re
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from chansup import __version__
from chansup.config import runtime_places, signposts
from chansup.errors import ChansupError, ExitCode
from chansup.protocol.status import Consumption, Event, LogLine, Status
from chansup.unix import Credentials, credentials

ANSWER_TIMEOUT = 10.0  # seconds for what the supervisor answers from memory
BEGIN_TIMEOUT = 60.0  # seconds until a command's first event
_OTHERS = 5  # config files that a message names
EXIT_TIMEOUT = 10.0  # seconds from the result of `stop` to the end of the process

Document = TypeVar("Document", Event, LogLine)


class NotRunningError(ChansupError):
    """No supervisor runs for this config file."""

    exit_code = ExitCode.NOT_RUNNING


class NotAnsweringError(ChansupError):
    """The supervisor is there, but cannot be talked to."""


class RefusedError(ChansupError):
    """The supervisor refused a command. `lines` is what a process printed, if that is why."""

    def __init__(self, message: str, exit_code: int, lines: list[str]) -> None:
        super().__init__(message)
        self.lines: list[str] = lines
        # A newer supervisor may know more exit codes.
        known = exit_code in ExitCode.__members__.values()
        self.exit_code = ExitCode(exit_code) if known else ExitCode.FAILED


def find(config: Path, environ: Mapping[str, str]) -> "Client":
    """Return the client for the supervisor of a config file, whether one runs or not.

    The file may be broken or gone by now: that must not keep anybody from asking for the status.
    """
    from chansup.supervisor.runtime.whereabouts import locate

    configured = _runtime_directory(config, environ)
    found = locate(config, configured, environ)
    return Client(found.socket, config, named=configured is not None, owner=found.owner)


def _runtime_directory(config: Path, environ: Mapping[str, str]) -> str | None:
    """Return ``[supervisor] runtime_directory`` as far as it can be made out."""
    import tomli

    from chansup.config.text import UnreadableFileError, read

    try:
        text = read(config)
    except UnreadableFileError:
        return None
    value: object = None
    try:
        table = tomli.loads(text).get("supervisor")
        value = table.get("runtime_directory") if isinstance(table, dict) else None
    except (ValueError, RecursionError):  # not TOML at the moment
        if found := re.search(r"""^\s*runtime_directory\s*=\s*["']([^"']+)["']""", text, re.M):
            value = found[1]
    if not isinstance(value, str) or "${" not in value:
        return value if isinstance(value, str) else None
    from chansup.config.interpolation import interpolate
    from chansup.config.load import load

    try:
        return load(config, environ).config.supervisor.runtime_directory
    except ChansupError:
        return interpolate(value, environ)[0]


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("chansup", timeout=timeout)
        self._path = path
        self.peer = Credentials(0, -1, -1)

    def connect(self) -> None:
        self.sock = self._stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
        self.peer = credentials(self.sock)

    def wait_for_ever(self) -> None:
        """Take away the time limit: from here on, silence means that nothing happens."""
        self._stream.settimeout(None)


class Client:
    """The supervisor of one config file, seen from outside. Every method may raise ChansupError.

    `named` says that the config itself names the directory of the socket. `owner` is the user id
    of another user, in whose directory it is.
    """

    def __init__(
        self, socket_path: Path, config: Path, named: bool = False, owner: int | None = None
    ) -> None:
        self.socket_path = socket_path
        self._config = config
        self._named = named
        self._owner = owner

    def whose(self) -> str | None:
        """Return whose supervisor it is, if it is another user's; None otherwise."""
        if self._owner is None:
            return None
        return f"the supervisor of {self._config} runs as {_user(self._owner)}"

    def version(self) -> dict[str, object]:
        """Return `version` and `pid` of the supervisor."""
        document = json.loads(self._get("/version"))
        return document if isinstance(document, dict) else {}

    def status(self) -> Status:
        """Return the present state."""
        body = self._get("/status")
        with _understood():
            return msgspec.json.decode(body, type=Status)

    def consumption(self) -> Consumption:
        """Return what channel workers and the hub counted so far."""
        body = self._get("/consumption")
        with _understood():
            return msgspec.json.decode(body, type=Consumption)

    def reload(self, wait: bool = True) -> Iterator[Event]:
        """Roll a new generation out; without `wait` only the first event comes."""
        return self._command("/reload", wait)

    def restart(self, target: str | None, wait: bool = True) -> Iterator[Event]:
        """Replace the processes of a pool, of a slot, or all."""
        return self._command("/restart", wait, target=target)

    def scale(self, pool: str, processes: int, wait: bool = True) -> Iterator[Event]:
        """Change the number of processes of a pool."""
        return self._command("/scale", wait, pool=pool, processes=str(processes))

    def move(self, mark: str) -> Iterator[Event]:
        """Move the one WebSocket whose handshake has this mark to another worker."""
        return self._command("/move", True, mark=mark)

    def stop(self, wait: bool = True) -> Iterator[Event]:
        """Stop everything; with `wait` the result comes when the supervisor itself is gone."""
        with self._connected(BEGIN_TIMEOUT) as connection:
            supervisor = _open_process(connection)
            try:
                for event in self._events(connection, "/stop", wait, {}):
                    if event.type == "result" and event.exit_code == 0 and wait:
                        _await_exit(supervisor)
                    yield event
            except (OSError, http.client.HTTPException, NotAnsweringError):
                if not _await_exit(supervisor):
                    raise
                yield Event("result", "The supervisor has ended.", outcome="succeeded")
            finally:
                if supervisor is not None:
                    os.close(supervisor)

    def logs(self, target: str | None, lines: int, follow: bool = False) -> Iterator[LogLine]:
        """Return recent lines of a pool, a slot or all, and with `follow` those to come."""
        query = _query(target=target, lines=str(lines), follow="1" if follow else None)
        with self._connected(ANSWER_TIMEOUT) as connection:
            response = self._ask(connection, "GET", f"/logs{query}")
            connection.wait_for_ever()
            yield from _documents(response, LogLine)

    def _get(self, target: str) -> bytes:
        with self._connected(ANSWER_TIMEOUT) as connection:
            return self._ask(connection, "GET", target).read()

    def _command(self, path: str, wait: bool, **parameters: str | None) -> Iterator[Event]:
        with self._connected(BEGIN_TIMEOUT) as connection:
            yield from self._events(connection, path, wait, parameters)

    def _events(
        self, connection: _Connection, path: str, wait: bool, parameters: dict[str, str | None]
    ) -> Iterator[Event]:
        query = _query(**parameters, wait=None if wait else "0")
        response = self._ask(connection, "POST", f"{path}{query}")
        connection.wait_for_ever()
        last = None
        for last in _documents(response, Event):
            yield last
        if last is None or (wait and last.type != "result"):
            raise NotAnsweringError(
                "The supervisor ended before the command was done. Its log says why."
            )

    @contextmanager
    def _connected(self, timeout: float) -> Iterator[_Connection]:
        connection = _Connection(self.socket_path, timeout)
        try:
            connection.connect()
            self._check_owner(connection)
            yield connection
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            self._name_what_is_in_the_way()
            raise NotRunningError(
                f"No supervisor runs for {self._config}. {_remedy(self._config)}"
            ) from None
        except PermissionError:
            owner = _owner(self.socket_path)
            raise NotAnsweringError(
                f"You may not talk to the supervisor of {self._config}: it belongs to {owner}. "
                "Run the command as that user or as root."
            ) from None
        except TimeoutError:
            raise NotAnsweringError(
                f"The supervisor of {self._config} does not answer. It may be stopped or "
                f"overloaded; its control socket is {self.socket_path}."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise NotAnsweringError(
                f"The connection to the supervisor of {self._config} broke: "
                f"{str(error) or type(error).__name__}. It may have ended or refused you."
            ) from None
        finally:
            connection.close()

    def _name_what_is_in_the_way(self) -> None:
        """Raise NotAnsweringError if the supervisor lives, and its control socket cannot be."""
        place = runtime_places.in_the_way(self.socket_path)
        if place is None and self.socket_path.exists() and not self.socket_path.is_socket():
            place = self.socket_path
        if place is None:
            return
        for post in signposts.read(self._config, runtime_places.bases(os.environ)):
            if Path(post.directory) == self.socket_path.parent and _runs(post.pid):
                what = "file" if place.is_file() else "thing"
                raise NotAnsweringError(
                    f"The supervisor of {self._config} runs as process {post.pid} and cannot be"
                    f" asked: {place} is a {what} that chansup did not make, where its control"
                    " socket belongs. Remove it, and chansup answers again within a second."
                )

    def _check_owner(self, connection: _Connection) -> None:
        """Make sure that no stranger put up a socket in the supervisor's place."""
        if self._named and os.geteuid() == 0:
            return  # root looks after another user's site, where the config says it is
        uid = connection.peer.uid
        if uid == self._owner and os.geteuid() == 0:
            return  # it is in the directory of that very user
        if uid not in (os.geteuid(), 0):
            raise NotAnsweringError(
                f"The control socket {self.socket_path} belongs to {_user(uid)}, not to you. "
                "It is not trusted; run the command as that user if it is the right one."
            )

    def _ask(self, connection: _Connection, method: str, target: str) -> http.client.HTTPResponse:
        connection.request(method, target)
        response = connection.getresponse()
        if response.status < 400:
            return response
        body = response.read()
        try:
            failure = json.loads(body)
            message, exit_code = str(failure["error"]), int(failure["exit_code"])
            lines = [str(line) for line in failure.get("lines", ())]
        except (ValueError, KeyError, TypeError, AttributeError):
            message = f"The supervisor answered with status {response.status}. Its log says why."
            exit_code, lines = ExitCode.FAILED, []
        raise RefusedError(message, exit_code, lines)


def _documents(response: http.client.HTTPResponse, kind: type[Document]) -> Iterator[Document]:
    decoder = msgspec.json.Decoder(kind)
    while line := response.readline():
        with _understood():
            document = decoder.decode(line)
        yield document


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except msgspec.DecodeError as error:
        raise NotAnsweringError(
            f"The supervisor's answer cannot be read ({error}). It may be of another version than "
            f"this command ({__version__}): stop it, and start it with this one."
        ) from None


def _query(**parameters: str | None) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given, errors='surrogateescape')}" if given else ""


def _open_process(connection: _Connection) -> int | None:
    try:
        return os.pidfd_open(connection.peer.pid)
    except OSError:  # of another PID namespace
        return None


def _await_exit(process: int | None) -> bool:
    """Wait for the end of a process (a pidfd), and say whether it came."""
    if process is None:
        return False
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(EXIT_TIMEOUT * 1000))


def _remedy(config: Path) -> str:
    from chansup.supervisor.runtime.whereabouts import others_of_this_user

    # Those that lie nearest first: a site of another release of this one, say.
    others = sorted(
        {post.config for post in others_of_this_user(os.environ)},
        key=lambda one: (-len(os.path.commonpath([one, config])), one),
    )
    named = ", ".join(others[:_OTHERS]) + (", …" if len(others) > _OTHERS else "")
    yours = f"Yours run for {named}: name one of these files with -c" if others else ""
    if not config.exists():
        first = "There is no such file"
        rest = yours or "go to the directory of yours, or name it with -c"
        return f"{first}. {rest}." if others else f"{first}: {rest}."
    if others:
        return f"{yours}, or start this one with `chansup -c {config} run`."
    return f"Start one with `chansup -c {config} run`, or name another file with -c."


def _runs(pid: int) -> bool:
    """Whether `pid` is a process of chansup, not one that got its number afterwards."""
    try:
        return b"chansup" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _owner(path: Path) -> str:
    for place in (path, *path.parents):
        try:
            return _user(place.stat().st_uid)
        except OSError:
            continue
    return "another user"


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user id {uid}"
