"""Which WebSockets may move: the decision alone."""

import pytest

from chansup.protocol.sessions import (
    SESSIONS,
    Handshake,
    Pattern,
    Rules,
    decide,
    recognised,
    word_of,
)

PLAIN = Handshake("/ws/chat/", b"room=1", ())
GRAPHQL = Handshake("/graphql", b"", ("graphql-transport-ws",))


@pytest.mark.parametrize(
    "subprotocol",
    [
        "graphql-ws", "graphql-transport-ws", "mqtt", "mqttv3.1", "MQTT", "v10.stomp", "v12.stomp",
        "wamp", "wamp.2.json", "wamp.2.cbor.batched", "ocpp1.6", "ocpp2.0.1", "xmpp", "sip", "msrp",
        "bfcp", "coap", "amqp", "AMQPWSB10", "actioncable-v1-json", "jmap", "rfb", "binary",
        "v5.channel.k8s.io", "base64.channel.k8s.io", "text.ircv3.net", "opcua+uacp", "lsp", "mcp",
        "json.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1", "centrifuge-json",
        "crossbar.wamp", "crossbar.wamp.2.json", "v1.kernel.websocket.jupyter.org",
        "actioncable-unsupported", "TLCP-2.4.0.lightstreamer.com", "bokeh", "streamlit", "realtime", "janus-protocol",
    ],
)  # fmt: skip
def test_subprotocols_with_a_session_do_not_move(subprotocol: str) -> None:
    verdict = decide(Handshake("/", b"", (subprotocol,)))
    assert not verdict.moves and verdict.is_session and verdict.reason


@pytest.mark.parametrize(
    "subprotocol",
    [
        "",
        "chat",
        "json",
        "soap",
        "superchat",
        "graphql",
        "xmqtt",
        "stomper.v1x",
        "jwt.mqtt",
        "x" * 9000,
    ],
)
def test_others_move(subprotocol: str) -> None:
    expected = subprotocol.startswith("stomp")  # "stomp*" is one of them
    assert decide(Handshake("/", b"", (subprotocol,))).moves is not expected


@pytest.mark.parametrize(
    ("path", "query", "moves"),
    [
        ("/socket.io/", b"EIO=4&transport=websocket", False),
        ("/any/where", b"t=1&EIO=3&transport=websocket&sid=abc", False),
        ("/ws", b"EIO", True),
        ("/ws", b"eio=4", True),
        ("/ws", b"next=%3FEIO%3D4", True),
        ("/echo/042/k2j1x0ab/websocket", b"", False),
        ("/rooms/42/k2j1x0ab/websocket", b"", True),
        ("/live/websocket", b"_csrf=x&vsn=2.0.0", False),
        ("/app/0123456789", b"protocol=7&client=js&version=8.4", False),
        ("/hub", b"transport=webSockets&connectionToken=AQ%3D", False),
        ("/chatHub", b"id=r0-3wTe3o1gF3LXe_Vq5mA", False),
        ("/hubs/chat", b"id=r0-3wTe3o1gF3LXe_Vq5mA&access_token=x", False),
        ("/_blazor", b"id=abc", False),
        ("/chatHub", b"id=42", True),
        ("/ws/orders/", b"id=r0-3wTe3o1gF3LXe_Vq5mA", True),
        ("/api/042/0123456789abcdef0123456789abcdef/websocket", b"", False),
        ("/echo/websocket", b"", True),  # SockJS as it is without a session
        ("/primus/", b"_primuscb=Lk3", False),
        ("/socketcluster/", b"", False),
        ("/faye", b"", False),
        ("/my/cometd", b"", False),
        ("/connection/websocket", b"", False),
        ("/connection/uni_websocket", b"cf_connect=%7B%7D", False),
        ("/queue/join", b"", False),
        ("/jupyter/api/kernels/7c2d/channels", b"session_id=1", False),
        ("/api/channels", b"", True),
        ("/terminals/websocket/1", b"", False),
        ("/socket/websocket", b"vsn=1.0.0", False),
        ("/ws/chat/", b"ticket=abc&room=EIO", True),
        ("/ws/chat/", b"%ff=%zz&&==", True),
    ],
)
def test_paths_and_queries_tell_as_well(path: str, query: bytes, moves: bool) -> None:
    assert decide(Handshake(path, query, ())).moves is moves


def test_one_of_the_offered_subprotocols_is_enough() -> None:
    assert not decide(Handshake("/", b"", ("chat", "mqtt"))).moves


def test_every_entry_of_the_table_recognises_something() -> None:
    for session in SESSIONS:
        pattern = session.pattern
        name, path, query = (
            (glob or "")
            .replace("[0-9.]", "1")
            .replace("[0-9]", "1")
            .replace("[a-z0-9_]", "a")
            .replace("[Hh]", "h")
            .replace("?", "a")
            for glob in (pattern.subprotocol, pattern.path, pattern.query)
        )
        handshake = Handshake(
            path.replace("*", "/x") or "/",
            query.replace("*", "1").encode(),
            (name.replace("*", "x"),),
        )
        assert recognised(handshake) is not None, session


class TestWhoHasTheLastWord:
    """From the strongest to the weakest."""

    EVERYTHING = Pattern(path="*")

    def test_the_app_that_wants_to_be_closed(self) -> None:
        verdict = decide(PLAIN, Rules(move=[self.EVERYTHING]), word="close")
        assert (verdict.moves, verdict.is_session) == (False, True)

    def test_move_wins_over_close_over_the_route_and_over_what_is_known(self) -> None:
        rules = Rules(close=[self.EVERYTHING], move=[Pattern(subprotocol="graphql-*")])
        assert decide(GRAPHQL, rules, "close").moves
        assert not decide(PLAIN, rules).moves

    def test_close_wins_over_an_app_that_wants_to_be_moved(self) -> None:
        rules = Rules(close=[Pattern(path="/ws/*")])
        verdict = decide(PLAIN, rules, word="transparent")
        assert (verdict.moves, verdict.is_session, verdict.reason) == (False, False, "")
        assert not decide(PLAIN, handover="close", word="transparent").moves

    def test_an_app_that_wants_to_be_moved_wins_over_what_is_known(self) -> None:
        assert decide(GRAPHQL, word="transparent").moves

    def test_what_is_known_wins_over_a_transparent_route(self) -> None:
        assert not decide(GRAPHQL, handover="transparent").moves


def test_all_globs_of_a_pattern_must_fit() -> None:
    rules = Rules(close=[Pattern(path="/ws/*", query="room=[0-9]")])
    assert not decide(PLAIN, rules).moves
    assert decide(Handshake("/ws/chat/", b"room=12", ()), rules).moves
    assert decide(Handshake("/w/chat/", b"room=1", ()), rules).moves
    assert not decide(PLAIN, Rules(close=[Pattern(query="room")])).moves
    assert decide(PLAIN, Rules(close=[Pattern(query="roo")])).moves


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([], None),
        ([b"close"], "close"),
        ([b" Transparent "], "transparent"),
        ([b"close", b"transparent"], "transparent"),
        ([b"perhaps"], "close"),
    ],
)
def test_the_header_is_read_and_taken_out(values: list[bytes], word: str | None) -> None:
    headers = [(b"x-a", b"1"), *((b"Chansup-Handover", value) for value in values), (b"x-b", b"2")]
    assert word_of(headers) == (word, [(b"x-a", b"1"), (b"x-b", b"2")])
