"""`[admin] bind`: health, metrics and a page for people. It answers questions, takes no commands.

``/livez``    200 as long as the supervisor's event loop runs
``/readyz``   200 when every pool has enough ready processes, else 503; JSON with the reasons
``/healthz``  always 200; JSON with the state of every pool and slot
``/metrics``  for Prometheus
``/``         the status page

Everything comes from memory, so no busy child can hold an answer up. What could hold a secret is
not told here at all, only to `chansup status`: command lines, paths, and what processes printed.

A page in a visitor's browser must not read this through DNS rebinding: a request that came in
over loopback has to name an IP address, ``localhost`` or this machine's own name as its host.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs

import msgspec

from chansup.config import address
from chansup.protocol import encoding
from chansup.protocol.status import PoolStatus, RolloutStatus, SlotStatus, TaskStatus
from chansup.supervisor.api.exchange import Receive, Scope, Send, respond
from chansup.supervisor.api.http import Server, admin_server
from chansup.supervisor.api.malformed import MalformedRequests
from chansup.supervisor.api.page import render, style_source
from chansup.supervisor.api.paths import without_folders
from chansup.supervisor.errors import AddressError
from chansup.supervisor.metrics.metrics import Counted, Metrics
from chansup.supervisor.sockets.listeners import Listeners
from chansup.supervisor.sockets.opening import open_listeners, overlap
from chansup.unix import Presence

TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"
SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
NO_CONTENT = b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

Endpoint = Callable[[Scope], Awaitable[tuple[int, bytes, bytes]]]  # status, body, content type


class Admin:
    """The ASGI application of `[admin] bind`."""

    def __init__(self, site: Counted, malformed: MalformedRequests | None = None) -> None:
        self.malformed = malformed or MalformedRequests()
        self._site = site
        self._metrics = Metrics(site, lambda: self.malformed.count)
        self._endpoints: dict[str, Endpoint] = {
            "/": self._page,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/healthz": self._healthz,
            "/metrics": self._scrape,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = list(SECURITY_HEADERS)
        policy = NO_CONTENT
        endpoint = self._endpoints.get(scope["path"])
        if not is_host_trusted(scope):
            message = b"Use localhost or an IP address as the host.\n"
            status, body, kind = 421, message, TEXT
        elif endpoint is None:
            status, body, kind = 404, b"Not found.\n", TEXT
        elif scope["method"] not in ("GET", "HEAD"):
            status, body, kind = 405, b"This endpoint only answers GET.\n", TEXT
            headers.append((b"allow", b"GET, HEAD"))
        else:
            status, body, kind = await endpoint(scope)
            if kind == HTML:
                policy += b"; style-src " + style_source()
        headers.append((b"content-security-policy", policy))
        await respond(send, status, body, kind, headers)

    async def _livez(self, scope: Scope) -> tuple[int, bytes, bytes]:
        return 200, b"ok\n", TEXT

    async def _readyz(self, scope: Scope) -> tuple[int, bytes, bytes]:
        status = self._site.status()
        reasons = list(map(without_folders, status.reasons))
        document = {"ready": status.ready, "state": status.state, "reasons": reasons}
        return (
            200 if status.ready else 503,
            encoding.encode_for_others(document),
            b"application/json",
        )

    async def _healthz(self, scope: Scope) -> tuple[int, bytes, bytes]:
        status = self._site.status()
        document = {
            "ready": status.ready,
            "reasons": list(map(without_folders, status.reasons)),
            "state": status.state,
            "version": status.version,
            "generation": status.generation,
            "started": status.started,
            "rollout": rollout_health(status.rollout),
            "pools": [pool_health(pool) for pool in status.pools],
            "tasks": [task_health(task) for task in status.tasks],
        }
        return 200, encoding.encode_for_others(document), b"application/json"

    async def _scrape(self, scope: Scope) -> tuple[int, bytes, bytes]:
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        body, kind = await self._metrics.page(accept.decode("latin-1"))
        return 200, body, kind

    async def _page(self, scope: Scope) -> tuple[int, bytes, bytes]:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        body = render(self._site.status(), refresh=query.get("refresh") != ["0"])
        return 200, body.encode(), HTML


class AdminAddress:
    """Where `[admin]` listens: the server on its present address, which a reload may change."""

    def __init__(self, admin: Admin, directory: Path) -> None:
        self.address: str | None = None  # with the real port
        self._admin = admin
        self._directory = directory  # that paths of Unix sockets are relative to
        self._bind: str | None = None  # as in the config
        self._server: Server | None = None
        self._listeners: list[Listeners] = []

    async def open(self, bind: str | None) -> None:
        """Serve on `bind`, and nowhere else any more. Raises AddressError; nothing changes then."""
        if bind == self._bind:
            return
        server, listeners = None, []
        if bind:
            listeners = await self._listen(address.parse(bind))
            server = self._server_on(listeners)
            await server.start()
        former, self._server = self._server, server
        present, self._listeners = self._listeners, listeners
        self.address = str(listeners[0].address) if listeners else None
        self._bind = bind
        if former is not None:
            await former.stop()
        for one in present:
            one.close()

    def _server_on(self, listeners: list[Listeners]) -> Server:
        on = [one.socket_of(0) for one in listeners]
        return admin_server(self._admin, on, self._admin.malformed)

    def presence(self) -> Presence:
        """Return what stands where clients look for it."""
        found = [one.presence() for one in self._listeners]
        return next((one for one in found if one is not Presence.OURS), Presence.OURS)

    async def restore(self) -> None:
        """Make a socket file that vanished again. Raises AddressError."""
        renewed = [one.restore(close_former=False) for one in self._listeners]
        if any(renewed):
            former = self._server
            self._server = self._server_on(self._listeners)
            await self._server.start()
            if former is not None:
                await former.stop()  # which closes the former sockets

    async def _listen(self, asked: address.Address) -> list[Listeners]:
        try:
            return await open_listeners(asked, directory=self._directory, steer=False)
        except AddressError as error:
            said = overlap(asked, self._listeners) or error
            raise AddressError(f"[admin] bind: {said}") from None

    async def close(self) -> None:
        """Stop serving."""
        await self.open(None)


def rollout_health(rollout: RolloutStatus | None) -> dict[str, object] | None:
    """Return what may be told of a rollout: not why it failed, which names files of the app."""
    if rollout is None:
        return None
    document = msgspec.structs.asdict(rollout)
    del document["message"]
    return document


def pool_health(pool: PoolStatus) -> dict[str, object]:
    """Return what may be told of a pool."""
    return {
        "name": pool.name,
        "kind": pool.kind,
        "desired": pool.desired,
        "ready": pool.ready,
        "slots": [slot_health(slot) for slot in pool.slots],
        "channels": pool.channels,
        "layer": pool.layer,
    }


def slot_health(slot: SlotStatus) -> dict[str, object]:
    """Return what may be told of a slot: not what its processes printed."""
    document = msgspec.structs.asdict(slot)
    del document["output"], document["status"]
    return document


def task_health(task: TaskStatus) -> dict[str, object]:
    """Return what may be told of a task: not what it printed."""
    document = msgspec.structs.asdict(task)
    del document["output"]
    return document


def is_host_trusted(scope: Scope) -> bool:
    """Say whether the Host header is one that DNS rebinding could not have brought about."""
    server = scope["server"]
    if not server or not _is_loopback(server[0]):
        return True  # open to others anyway, and reached by whatever name they have for it
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if not hosts:
        return True  # HTTP/1.0; no browser
    host = hosts[0].decode("latin-1").strip().lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True  # never looked up in the DNS: RFC 6761, section 6.3
    return name == socket.gethostname().lower() or _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return _is_address(text) and ipaddress.ip_address(text).is_loopback
