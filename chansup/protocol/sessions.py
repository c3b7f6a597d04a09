"""Which WebSockets may move to another process, and which have a session that would be lost there.

A handover repeats the handshake at another process. What the client said after the handshake is
not repeated: a protocol that opens a session by messages (CONNECT of MQTT and STOMP,
``connection_init`` of GraphQL, the packets of Engine.IO) is unknown to the new process, and the
client has no reason to open it again. Such a WebSocket is closed with 1012 instead; its client
comes back by itself. Whoever moves WebSockets asks `decide`. Free of I/O.
"""

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal
from urllib.parse import parse_qsl

import msgspec

Handover = Literal["transparent", "close"]
Headers = list[tuple[bytes, bytes]]

HEADER = b"chansup-handover"  # of websocket.accept: the app's word, which no client sees
WORDS: tuple[Handover, ...] = ("transparent", "close")
_LONGEST_NAME = 200  # characters of a subprotocol that is compared


class Pattern(msgspec.Struct, frozen=True):
    """Globs. What stands must fit, all of it; None fits everything."""

    subprotocol: str | None = None  # case does not matter: RFC 7936, section 2
    path: str | None = None  # as the app sees it, decoded
    query: str | None = None  # one "name=value" of the query, decoded; without "=": a name

    def __str__(self) -> str:
        """Return the pattern as the config has it."""
        parts = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return ", ".join(f'{name} "{glob}"' for name, glob in parts if glob is not None)


class Rules(msgspec.Struct, frozen=True):
    """What the config says: ``[handover]``. `move` wins over `close`, and over all else."""

    close: list[Pattern] = []
    move: list[Pattern] = []


class Handshake(msgspec.Struct, frozen=True):
    """The facts of a WebSocket that was accepted."""

    path: str
    query: bytes
    subprotocols: tuple[str, ...]  # the accepted one, else those that the client offered

    def fits(self, pattern: Pattern) -> bool:
        """Say whether it fits a pattern."""
        return (
            (pattern.path is None or fnmatchcase(self.path, pattern.path))
            and (pattern.subprotocol is None or self._speaks(pattern.subprotocol.lower()))
            and (pattern.query is None or self._asks(pattern.query))
        )

    def _speaks(self, glob: str) -> bool:
        return any(
            len(name) <= _LONGEST_NAME and fnmatchcase(name.lower(), glob)
            for name in self.subprotocols
        )

    def _asks(self, glob: str) -> bool:
        if not self.query:
            return False
        pairs = parse_qsl(self.query.decode("latin-1"), keep_blank_values=True)
        if "=" in glob:
            return any(fnmatchcase(f"{name}={value}", glob) for name, value in pairs)
        return any(fnmatchcase(name, glob) for name, _ in pairs)


class Session(msgspec.Struct, frozen=True):
    """A protocol that is known to have a session of its own, and how it is recognised."""

    name: str
    pattern: Pattern
    state: str  # what a new process would not know


class Verdict(msgspec.Struct, frozen=True):
    """Whether a WebSocket may move. `is_session`: it would, but for a session of its own."""

    moves: bool
    is_session: bool = False
    reason: str = ""  # why it may not, for the log; empty where the config says so


def _named(name: str, state: str, *globs: str) -> tuple[Session, ...]:
    return tuple(Session(name, Pattern(subprotocol=glob), state) for glob in globs)


_CONNECTED = "the client's first message opens the session"
_SUBSCRIBED = "the client subscribes by messages"
_NEGOTIATED = "the negotiated connection"
_HELD = "the process holds what the connection is about"

# The order of the documentation, docs/which-apps-survive.md.
SESSIONS: tuple[Session, ...] = (
    # Application frameworks
    Session("Engine.IO and Socket.IO", Pattern(query="EIO=[0-9]*"), "the process assigns the sid"),
    Session("SockJS", Pattern(path=f"*/{'[0-9]' * 3}/{'[a-z0-9_]' * 8}/websocket"), _CONNECTED),
    Session("SockJS", Pattern(path=f"*/{'[0-9]' * 3}/{'?' * 32}/websocket"), _CONNECTED),
    Session("SignalR", Pattern(query="connectionToken=*"), _NEGOTIATED),
    Session("SignalR", Pattern(path="*[Hh]ub*", query=f"id={'?' * 22}"), _NEGOTIATED),
    Session("SignalR", Pattern(path="*/_blazor", query="id=*"), _NEGOTIATED),
    Session("Primus", Pattern(query="_primuscb=*"), _HELD),
    Session("SocketCluster", Pattern(path="*/socketcluster/"), _CONNECTED),
    Session("Bayeux", Pattern(path="*/cometd"), _CONNECTED),
    Session("Bayeux", Pattern(path="*/faye"), _CONNECTED),
    Session("Bayeux", Pattern(path="*/bayeux"), _CONNECTED),
    Session("Phoenix channels", Pattern(query="vsn=[0-9]*.[0-9]*.[0-9]*"), _SUBSCRIBED),
    Session("Pusher", Pattern(path="/app/*", query="protocol=[0-9]*"), "the socket_id"),
    *_named("GraphQL subscriptions", _CONNECTED, "graphql-ws", "graphql-transport-ws", "graphql-*"),
    *_named("Action Cable", _SUBSCRIBED, "actioncable-*"),
    *_named("Centrifugo", _CONNECTED, "centrifuge-*"),
    Session("Centrifugo", Pattern(path="*/connection/websocket"), _CONNECTED),
    Session("Centrifugo", Pattern(path="*/connection/uni_websocket"), _CONNECTED),
    *_named("Web PubSub", _SUBSCRIBED, "*.webpubsub.azure.v[0-9]*"),
    *_named("Bokeh and Panel", _HELD, "bokeh"),
    *_named("Streamlit", _HELD, "streamlit"),
    Session("Gradio 3", Pattern(path="*/queue/join"), _CONNECTED),
    *_named("Jupyter kernels", _HELD, "*.kernel.websocket.jupyter.org"),
    Session("Jupyter kernels", Pattern(path="*/api/kernels/*/channels"), _HELD),
    # Messaging
    *_named("MQTT", _CONNECTED, "mqtt*"),
    *_named("STOMP", _CONNECTED, "*.stomp", "stomp*"),
    *_named("WAMP", _CONNECTED, "wamp*", "crossbar.wamp*"),
    *_named("AMQP", _CONNECTED, "amqp", "amqp[0-9.]*", "amqpwsb10"),
    *_named("NATS", _CONNECTED, "nats", "nats.*"),
    *_named("XMPP", _CONNECTED, "xmpp", "xmpp-*"),
    *_named("IRC", _CONNECTED, "*.ircv3.net", "irc", "irc.*"),
    *_named("MBWS", _CONNECTED, "mbws.huawei.com", "mblws.huawei.com"),
    *_named("Lightstreamer", _CONNECTED, "*.lightstreamer.com"),
    *_named("COBRA", _SUBSCRIBED, "cobra.*"),
    *_named("mles", _CONNECTED, "mles-websocket"),
    *_named("jsFlow", _SUBSCRIBED, "jsflow"),
    *_named("WPCP", _SUBSCRIBED, "wpcp", "rwpcp"),
    *_named("JMAP", "push is switched on by a message", "jmap"),
    # Devices
    *_named("OCPP", "the charger reports at boot, and calls are answered by id", "ocpp*"),
    *_named("CoAP", "settings and observations belong to the connection", "coap"),
    *_named("OPC UA", "the secure channel and its sessions", "opcua+*"),
    *_named("USP", _CONNECTED, "v[0-9]*.usp"),
    *_named("SHIP", _CONNECTED, "ship"),
    *_named("BACnet/SC", _CONNECTED, "*.bsc.bacnet.org"),
    # Calls and media
    *_named("SIP", "registrations and dialogs belong to the connection", "sip"),
    *_named("MSRP", "the session of the call", "msrp"),
    *_named("BFCP", "the conference and its floors", "bfcp"),
    *_named("Janus", "the session and its handles", "janus-protocol"),
    *_named("protoo", _HELD, "protoo"),
    *_named("SaltyRTC", "keys that were agreed upon", "*.saltyrtc.org"),
    *_named("SLDP", _CONNECTED, "*.softvelum.com"),
    *_named("OpenAI Realtime", _HELD, "realtime"),
    # Consoles, screens and tools
    *_named("VNC and other tunnels", "the connection behind it", "rfb", "binary", "base64"),
    *_named("Guacamole", "the connection behind it", "guacamole"),
    *_named("terminals", "the shell behind it", "tty", "ssh"),
    Session("terminals", Pattern(path="*/terminals/websocket/*"), "the shell behind it"),
    *_named("Kubernetes streams", "the process behind it", "channel.k8s.io", "*.channel.k8s.io"),
    *_named("Oracle Net", "the connection behind it", "sqlnet.oracle.com"),
    *_named("Language Server Protocol", _CONNECTED, "lsp", "lsp.*"),
    *_named("Model Context Protocol", _CONNECTED, "mcp"),
)


_BY_SUBPROTOCOL = [one for one in SESSIONS if one.pattern.subprotocol is not None]
_OTHERS = [one for one in SESSIONS if one.pattern.subprotocol is None]


def recognised(handshake: Handshake) -> Session | None:
    """Return the protocol of a WebSocket that is known to have a session of its own, or None."""
    for name in handshake.subprotocols:
        if len(name) <= _LONGEST_NAME and (found := _speaking(name)) is not None:
            return found
    return next((one for one in _OTHERS if handshake.fits(one.pattern)), None)


@lru_cache(maxsize=256)
def _speaking(subprotocol: str) -> Session | None:
    handshake = Handshake("", b"", (subprotocol,))
    return next((one for one in _BY_SUBPROTOCOL if handshake.fits(one.pattern)), None)


def decide(
    handshake: Handshake,
    rules: Rules = Rules(),  # noqa: B008 - immutable
    handover: Handover = "transparent",
    word: Handover | None = None,
) -> Verdict:
    """Return whether a WebSocket may move to another process.

    `handover` is that of its route or pool, `word` what the app itself said. The first that fits
    counts: the app's "close", `move` and `close` of the rules, the route's "close", the app's
    "transparent", and the known protocols.
    """
    if word == "close":
        return Verdict(False, True, "the app asks for it")
    if any(handshake.fits(pattern) for pattern in rules.move):
        return Verdict(True)
    if handover == "close" or any(handshake.fits(pattern) for pattern in rules.close):
        return Verdict(False)
    if word == "transparent":
        return Verdict(True)
    session = recognised(handshake)
    if session is None:
        return Verdict(True)
    return Verdict(False, True, f"{session.name} ({session.pattern})")


def word_of(headers: Headers) -> tuple[Handover | None, Headers]:
    """Return the app's word in the headers of ``websocket.accept``, and the other headers.

    An unknown word counts as "close": an app that says something does not expect to be moved.
    """
    said = [value for name, value in headers if name.lower() == HEADER]
    if not said:
        return None, headers
    others = [(name, value) for name, value in headers if name.lower() != HEADER]
    is_transparent = said[-1].strip().lower() == b"transparent"
    return ("transparent" if is_transparent else "close"), others
