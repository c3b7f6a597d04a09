"""Packages whose WebSockets have a session of their own: what `init` and `check` say of them.

The clients of the first kind speak a protocol that `protocol.sessions` recognises: they are closed
with 1012 instead of moved. Those of the second kind look like any other WebSocket.
"""

from collections.abc import Collection

import msgspec


class Package(msgspec.Struct, frozen=True):
    """A package that an app may import."""

    module: str  # "socketio"; with dots where a part of it tells
    name: str  # as people know it
    is_recognised: bool = True
    word: str = ""  # that a project has which uses it for WebSockets; empty: each one does


PACKAGES = (
    # Recognised by subprotocol or query
    Package("socketio", "Socket.IO"),
    Package("engineio", "Engine.IO"),
    Package("nicegui", "NiceGUI, on Socket.IO"),
    Package("reflex", "Reflex, on Socket.IO"),
    Package("chainlit", "Chainlit, on Socket.IO"),
    Package("strawberry", "GraphQL subscriptions of Strawberry", word="ubscription"),
    Package("ariadne", "GraphQL subscriptions of Ariadne", word="ubscription"),
    Package("ariadne_graphql_modules", "GraphQL subscriptions of Ariadne", word="ubscription"),
    Package("channels_graphql_ws", "GraphQL subscriptions of DjangoChannelsGraphqlWs"),
    Package("graphene_subscriptions", "GraphQL subscriptions of Graphene"),
    Package("starlette_graphene3", "GraphQL subscriptions of Graphene", word="ubscription"),
    Package("tartiflette_asgi", "GraphQL subscriptions of Tartiflette", word="ubscription"),
    Package("graphql_ws", "GraphQL subscriptions of graphql-ws"),
    Package("graphql_server", "GraphQL subscriptions of graphql-server", word="ubscription"),
    Package("autobahn.asyncio.component", "WAMP of Autobahn"),
    Package("autobahn.asyncio.wamp", "WAMP of Autobahn"),
    Package("autobahn.twisted.component", "WAMP of Autobahn"),
    Package("wampproto", "WAMP"),
    Package("amqtt", "MQTT of aMQTT"),
    Package("hbmqtt", "MQTT of HBMQTT"),
    Package("mqttproto", "MQTT"),
    Package("coilmq", "STOMP of CoilMQ"),
    Package("ocpp", "OCPP"),
    Package("slixmpp", "XMPP of Slixmpp"),
    Package("pyview", "PyView, on Phoenix channels"),
    Package("bokeh_fastapi", "Bokeh"),
    Package("panel.io.fastapi", "Panel"),
    Package("streamlit", "Streamlit"),
    Package("mcp.server.websocket", "the Model Context Protocol"),
    Package("guacamole", "Guacamole"),
    # Not recognised
    Package("fastapi_websocket_rpc", "fastapi_websocket_rpc", False),
    Package("fastapi_websocket_pubsub", "fastapi_websocket_pubsub", False),
    Package("djangochannelsrestframework", "Django Channels Rest Framework", False),
    Package("channelsmultiplexer", "channelsmultiplexer", False),
    Package("pycrdt_websocket", "shared documents of pycrdt", False),
    Package("pycrdt.websocket", "shared documents of pycrdt", False),
    Package("ypy_websocket", "shared documents of Ypy", False),
    Package("reactpy", "ReactPy", False),
    Package("reactpy_django", "ReactPy", False),
    Package("idom", "IDOM", False),
    Package("flet", "Flet", False),
    Package("flet_web", "Flet", False),
    Package("flet_fastapi", "Flet", False),
    Package("shiny", "Shiny", False),
    Package("solara", "Solara", False),
    Package("marimo", "marimo", False),
    Package("justpy", "JustPy", False),
    Package("rio", "Rio", False),
    Package("pipecat", "Pipecat", False),
    Package("aiortc", "aiortc", False),
    Package("pygls", "language servers of pygls", False),
    Package("sockpuppet", "Django Sockpuppet", False),
)


def imported(modules: Collection[str]) -> list[Package]:
    """Return the packages of which a module is among `modules`, each name once."""
    found = {package.name: package for package in PACKAGES if package.module in modules}
    if "Socket.IO" in {name.rpartition(", on ")[2] for name in found}:
        found.pop("Engine.IO", None)  # Socket.IO brings it along
    return list(found.values())


def named(module: str) -> Package | None:
    """Return the package of a module, or None."""
    return next((package for package in PACKAGES if package.module == module), None)
