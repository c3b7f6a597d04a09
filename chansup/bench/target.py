"""Whom to ask, and what: the URL and the options of the command, looked over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from chansup import __version__
from chansup.bench.errors import BenchError, BenchUsageError
from chansup.text import TOKEN, header

PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
MAX_DATA = 16 * 2**20  # bytes of a request's body
USER_AGENT = f"chansup-bench/{__version__}"

_SAFE_IN_PATH = "/%:@!$&'()*+,;=~?[]-._"
_OURS = {"content-length", "transfer-encoding", "sec-websocket-key", "sec-websocket-version"}

Header = tuple[str, str]


@dataclass(frozen=True)
class Target:
    """A URL, taken apart."""

    url: str
    scheme: str
    host: str  # as in the Host header, without brackets
    port: int
    path: str  # with the query

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme in ("https", "wss")

    @property
    def is_websocket(self) -> bool:
        """Whether WebSockets are opened."""
        return self.scheme in ("ws", "wss")

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def websocket_url(self) -> str:
        """The URL as the handshake has it: with its path quoted."""
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True)
class Options:
    """How to ask. Times are seconds."""

    connections: int = 10
    seconds: float | None = 10.0
    requests: int | None = None
    rate: float | None = None  # per second, of all connections together
    timeout: float = 10.0
    insecure: bool = False
    method: str = "GET"
    headers: tuple[Header, ...] = ()
    data: bytes | None = None
    message: str = "chansup bench {n}"
    idle: bool = False

    def __post_init__(self) -> None:
        """Refuse what passes every comparison."""
        numbers = {"seconds": self.seconds, "rate": self.rate, "timeout": self.timeout}
        for name, value in numbers.items():
            if value is not None and not math.isfinite(value):
                raise BenchUsageError(f"--{name}: {value} is not a number to count with")


def parse_url(url: str) -> Target:
    """Take a URL apart, or say what is wrong with it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BenchUsageError(f"{url}: {error}") from None
    if parts.scheme not in PORTS:
        raise BenchUsageError(
            f"{url!r}: a URL begins with http://, https://, ws:// or wss://,"
            f" as in http://{url if '://' not in url and url else '127.0.0.1:8000/'}"
        )
    if not parts.hostname:
        raise BenchUsageError(f"{url}: it names no host, as in {parts.scheme}://127.0.0.1:8000/")
    if port == 0:
        raise BenchUsageError(f"{url}: no server listens on port 0")
    if parts.username is not None:
        raise BenchUsageError(
            "a URL with a user name: give --header 'Authorization: …' in its stead"
        )
    try:
        host = parts.hostname.encode("ascii" if ":" in parts.hostname else "idna").decode()
    except UnicodeError:
        raise BenchUsageError(f"{url}: {parts.hostname!r} is not a host name") from None
    path = quote(parts.path or "/", safe=_SAFE_IN_PATH)
    if parts.query:
        path += "?" + quote(parts.query, safe=_SAFE_IN_PATH)
    return Target(url, parts.scheme, host, port or PORTS[parts.scheme], path)


def parse_headers(given: Sequence[str]) -> tuple[Header, ...]:
    """Take headers apart: "Name: value"."""
    headers = []
    for text in given:
        found = header(text)
        if found is None:
            raise BenchUsageError(f"--header {text!r}: expected 'Name: value'")
        name, value = found
        if name.lower() in _OURS:
            raise BenchUsageError(f"--header {text!r}: chansup bench sets {name} itself")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise BenchUsageError(f"--header {text!r}: a header is Latin-1") from None
        headers.append((name, value))
    return tuple(headers)


def read_data(given: str | None) -> bytes | None:
    """Return the body of the requests: what was given, or with @ the file of that name."""
    if given is None or not given.startswith("@"):
        return None if given is None else given.encode()
    path = Path(given[1:])
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DATA + 1)
    except OSError as error:
        raise BenchError(f"--data {given}: {error.strerror or error}") from None
    if len(data) > MAX_DATA:
        raise BenchError(f"--data {given}: larger than {MAX_DATA // 2**20} MiB")
    return data


def parse_method(given: str | None, data: bytes | None) -> str:
    """Return the method: GET, or POST where there is a body."""
    method = (given or ("GET" if data is None else "POST")).upper()
    if not TOKEN.match(method) or method == "CONNECT":
        raise BenchUsageError(f"--method {given!r}: expected a method such as GET, POST or HEAD")
    return method


def request_bytes(target: Target, options: Options) -> bytes:
    """Return the request that is sent again and again."""
    said = {name.lower() for name, _ in options.headers}
    headers: list[Header] = []
    if "host" not in said:
        headers.append(("Host", target.authority))
    if "user-agent" not in said:
        headers.append(("User-Agent", USER_AGENT))
    if "accept" not in said:
        headers.append(("Accept", "*/*"))
    if options.data is not None:
        if "content-type" not in said:  # as curl has it
            headers.append(("Content-Type", "application/x-www-form-urlencoded"))
        headers.append(("Content-Length", str(len(options.data))))
    headers += options.headers
    lines = [f"{options.method} {target.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head + (options.data or b"")
