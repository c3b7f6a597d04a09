"""What `chansup init` and `check` see of state that one process keeps, and what is none."""

from pathlib import Path
from textwrap import dedent

import pytest

from chansup.config.load import load
from chansup.project import discover, in_process, notes, render, several_processes

pytestmark = pytest.mark.slow  # the interpreter makes no difference

MANAGER = """
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect

    class ConnectionManager:
        def __init__(self):
            self.active_connections: list[WebSocket] = []

        async def connect(self, websocket: WebSocket):
            await websocket.accept()
            self.active_connections.append(websocket)

        def disconnect(self, websocket: WebSocket):
            self.active_connections.remove(websocket)

        async def broadcast(self, message: str):
            for connection in self.active_connections:
                await connection.send_text(message)

    app = FastAPI()
    manager = ConnectionManager()

    @app.websocket("/ws/{client_id}")
    async def endpoint(websocket: WebSocket, client_id: int):
        await manager.connect(websocket)
"""
HEAD = "from fastapi import FastAPI, WebSocket\napp = FastAPI()\n"

CONNECTIONS = {
    "a set": (
        HEAD
        + """
connections = set()
@app.websocket("/ws")
async def ws(websocket: WebSocket):
    connections.add(websocket)
""",
        "connections",
    ),
    "rooms": (
        HEAD
        + """
from collections import defaultdict
rooms = defaultdict(set)
@app.websocket("/ws/{room}")
async def ws(websocket: WebSocket, room: str):
    members = rooms[room]
    members.add(websocket)
""",
        "rooms",
    ),
    "setdefault": (
        HEAD
        + """
rooms: dict = {}
@app.websocket("/ws/{room}")
async def ws(websocket: WebSocket, room: str):
    rooms.setdefault(room, []).append((websocket, room))
""",
        "rooms",
    ),
    "wrapped": (
        HEAD
        + """
players = {}
class Player:
    def __init__(self, websocket): self.websocket = websocket
@app.websocket("/ws/{name}")
async def ws(websocket: WebSocket, name: str):
    player = Player(websocket)
    players[name] = player
""",
        "players",
    ),
    "annotated alone": (
        HEAD
        + """
from chat import register
sockets: dict[str, list[WebSocket]] = {}
@app.websocket("/ws")
async def ws(sock: WebSocket): register(sockets, sock)
""",
        "sockets",
    ),
    "on the app": (
        """
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
app = Starlette()
app.state.clients = []
class Chat(WebSocketEndpoint):
    async def on_connect(self, websocket):
        websocket.app.state.clients.append(websocket)
""",
        "clients",
    ),
    "of an app factory": (
        """
from starlette.applications import Starlette
def build():
    listeners = set()
    async def chat(websocket):
        listeners.add(websocket)
    return Starlette(routes=[WebSocketRoute("/", chat)])
app: Starlette = Starlette()
""",
        "listeners",
    ),
    "quart broker": (
        """
import asyncio
from quart import Quart, websocket
class Broker:
    def __init__(self) -> None:
        self.connections = set()
    async def publish(self, message):
        for connection in self.connections:
            await connection.put(message)
    async def subscribe(self):
        connection = asyncio.Queue()
        self.connections.add(connection)
        try:
            while True:
                yield await connection.get()
        finally:
            self.connections.remove(connection)
app = Quart(__name__)
broker = Broker()
@app.websocket("/ws")
async def ws(): pass
""",
        "connections",
    ),
    "quart proxy": (
        """
from quart import Quart, websocket
app = Quart(__name__)
connected = set()
@app.websocket("/ws")
async def ws():
    connected.add(websocket._get_current_object())
""",
        "connected",
    ),
    "server-sent events": (
        """
import asyncio
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
app = FastAPI()
subscribers: list[asyncio.Queue] = []
@app.get("/events")
async def events():
    queue: asyncio.Queue = asyncio.Queue()
    subscribers.append(queue)
    async def stream():
        try:
            while True:
                yield await queue.get()
        finally:
            subscribers.remove(queue)
    return StreamingResponse(stream())
""",
        "subscribers",
    ),
    "queues that nobody takes out": (
        """
import asyncio
from quart import Quart, websocket
app = Quart(__name__)
listeners = []
@app.websocket("/ws")
async def ws():
    queue = asyncio.Queue()
    listeners.append(queue)
    while True:
        await websocket.send(await queue.get())
""",
        "listeners",
    ),
    "plain ASGI": (
        """
clients = set()
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        clients.add(send)
""",
        "clients",
    ),
    "consumers of a class": (
        """
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
class Chat(AsyncWebsocketConsumer):
    everybody = []
    async def connect(self):
        self.everybody.append(self)
app = ProtocolTypeRouter({"websocket": Chat.as_asgi()})
""",
        "everybody",
    ),
    "channel names": (
        """
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
online = {}
class Chat(AsyncWebsocketConsumer):
    async def connect(self):
        online[self.scope["user"].id] = self.channel_name
app = ProtocolTypeRouter({"websocket": Chat.as_asgi()})
""",
        "online",
    ),
}

NONE = {
    "constants, caches, registries": """
from functools import cache
ALLOWED = {"a", "b"}
CACHE = {}
HANDLERS = []
jobs = {}
def register(function):
    HANDLERS.append(function)
    return function
@app.get("/{name}")
async def page(name: str):
    CACHE[name] = len(name)
    return CACHE[name]
@app.on_event("startup")
async def start():
    import asyncio
    jobs["mail"] = asyncio.Queue()
""",
    "what a handler keeps to itself": """
@app.websocket("/ws")
async def ws(websocket: WebSocket):
    tasks = set()
    tasks.add(websocket)
    history = []
    history.append(await websocket.receive_text())
""",
    "a cache that a handler fills": """
USERS = {}
@app.websocket("/ws")
async def ws(websocket: WebSocket):
    user = await load_user(websocket)
    USERS[user.id] = user
    USERS["last"] = websocket.headers["host"]
""",
    "a pool of a database": """
pool = []
def give_back(conn):
    pool.append(conn)
class Database:
    def __init__(self):
        self.connections = set()
    def open(self, client, socket):
        connection = connect(client)
        self.connections.add(connection)
""",
    "queues of background work": """
import asyncio
queues = []
def worker():
    queue = asyncio.Queue()
    queues.append(queue)
    return queue
""",
    "queues of background work, each read by its worker": """
import asyncio
queues = []
async def work():
    queue = asyncio.Queue()
    queues.append(queue)
    while True:
        handle(await queue.get())
""",
    "what the consumer itself has": """
from channels.generic.websocket import AsyncWebsocketConsumer
class Chat(AsyncWebsocketConsumer):
    async def connect(self):
        self.parts = []
        self.parts.append(self)
""",
    "consumers of Kafka": """
consumers = []
class Consumer(BaseConsumer):
    def __init__(self):
        consumers.append(self)
""",
    "a helper with a parameter": """
def enlist(members, websocket: WebSocket):
    members.append(websocket)
""",
}


def found(directory: Path, source: str, name: str = "main") -> in_process.Findings:
    (directory / f"{name}.py").write_text(dedent(source))
    discovered = discover(directory)
    return in_process.find(directory, discovered.asgi)


@pytest.mark.parametrize("case", CONNECTIONS)
def test_collections_of_live_connections_are_seen(tmp_path: Path, case: str) -> None:
    source, name = CONNECTIONS[case]
    kept = found(tmp_path, source).kept
    assert len(kept) == 1, kept
    assert kept[0].kind == "connections" and f'"{name}"' in kept[0].what
    assert kept[0].place.startswith("main.py:")


@pytest.mark.parametrize("case", NONE)
def test_what_holds_no_connections_is_no_alarm(tmp_path: Path, case: str) -> None:
    assert found(tmp_path, HEAD + NONE[case]).kept == []


def test_a_collection_of_another_module_is_named_where_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "state.py").write_text("connections = set()\n")
    source = HEAD + (
        "from state import connections\n@app.websocket('/ws')\n"
        "async def ws(websocket: WebSocket): connections.add(websocket)\n"
    )
    kept = found(tmp_path, source).kept
    assert [one.place for one in kept] == ["state.py:1"]


def test_files_that_the_app_does_not_import_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "demo.py").write_text(CONNECTIONS["a set"][0])
    assert found(tmp_path, HEAD + "@app.websocket('/')\nasync def ws(websocket): pass\n").kept == []
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "__init__.py").write_text("")
    (tmp_path / "chat" / "views.py").write_text(CONNECTIONS["a set"][0])
    assert len(found(tmp_path, HEAD + "from chat import views\n").kept) == 1


SIO = "import socketio\n"


@pytest.mark.parametrize(
    ("source", "kept", "polls"),
    [
        ("sio = socketio.AsyncServer(async_mode='asgi')", True, True),
        ("sio = socketio.AsyncServer(client_manager=None)", True, True),
        ("sio = socketio.AsyncServer(client_manager=socketio.AsyncManager())", True, True),
        ("sio = socketio.AsyncServer(transports=['websocket'])", True, False),
        (
            """manager = socketio.AsyncRedisManager('redis://')
sio = socketio.AsyncServer(client_manager=manager)""",
            False,
            True,
        ),
        ("sio = socketio.AsyncServer(**OPTIONS)", False, True),
    ],
)
def test_socket_io(tmp_path: Path, source: str, kept: bool, polls: bool) -> None:
    findings = found(tmp_path, f"{SIO}{source}\napp = socketio.ASGIApp(sio)\n")
    assert (bool(findings.kept), findings.polls) == (kept, polls)


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("from broadcaster import Broadcast\nbroadcast = Broadcast('memory://')", True),
        ("from broadcaster import Broadcast\nU = 'memory://'\nbroadcast = Broadcast(U)", True),
        ("from broadcaster import Broadcast\nbroadcast = Broadcast('redis://localhost')", False),
        (
            """from litestar.channels.backends.memory import MemoryChannelsBackend
backend = MemoryChannelsBackend()""",
            True,
        ),
        ("from fastapi_websocket_pubsub import PubSubEndpoint\nend = PubSubEndpoint()", True),
        ("from fastapi_websocket_pubsub import PubSubEndpoint\nend = PubSubEndpoint(u)", False),
        ("L = {'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}", True),
        ("from x import Broadcast\nb = Broadcast('memory://')", False),
    ],
)
def test_layers_of_one_process(tmp_path: Path, source: str, kept: bool) -> None:
    assert bool(found(tmp_path, HEAD + source).kept) is kept


def written(directory: Path, source: str) -> tuple[str, str]:
    """Return the file that init writes, and its notes."""
    (directory / "main.py").write_text(dedent(source))
    project = discover(directory)
    text = render(project)
    (directory / "chansup.toml").write_text(text)
    assert load(directory / "chansup.toml", {}).warnings == []
    return text, "\n".join(notes(project))


def test_init_writes_one_process_with_a_note(tmp_path: Path) -> None:
    text, said = written(tmp_path, MANAGER)
    workers = text[text.index("[workers.web]") :]
    assert "processes = 1" in workers and "per-core" not in workers
    assert "main.py:6" in said and '"active_connections"' in said
    assert "processes = 2" in text[: text.index("[workers.web]")], "the interface only relays"


def test_init_writes_one_process_in_direct_mode(tmp_path: Path) -> None:
    text, said = written(tmp_path, CONNECTIONS["server-sent events"][0])
    assert "[workers" not in text and "processes = 1" in text and "processes = 2" not in text
    assert '"subscribers"' in said


def test_init_makes_polling_sticky_where_several_processes_are_right(tmp_path: Path) -> None:
    source = (
        "import socketio\nmanager = socketio.AsyncRedisManager('redis://')\n"
        "sio = socketio.AsyncServer(client_manager=manager, async_mode='asgi')\n"
        "app = socketio.ASGIApp(sio)\n"
    )
    text, _ = written(tmp_path, source)
    assert 'sticky = "sid"' in text and 'processes = "per-core"' in text


def warned(directory: Path, config: str) -> list[tuple[str, int | None, str]]:
    (directory / "chansup.toml").write_text(config)
    found = several_processes.warnings(directory / "chansup.toml", {})
    return [(one.key, one.line, one.message) for one in found]


WORKERS = '[app]\nasgi="main:app"\n[interface]\n[workers.web]\nserves=["http","websocket"]\n'


def test_check_warns_where_several_processes_run_such_an_app(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(dedent(MANAGER))
    ((key, line, message),) = warned(tmp_path, WORKERS + "processes = 3\n")
    assert (key, line) == ("workers.web.processes", 6)
    assert "3 processes" in message and '"active_connections"' in message and "main.py:6" in message
    assert "processes = 1" in message
    ((_, _, message),) = warned(tmp_path, WORKERS + 'processes = "4-per-core"\n')
    assert "processes run the app" in message
    assert warned(tmp_path, WORKERS) == []
    assert warned(tmp_path, "no toml") == []
    ((key, _, _),) = warned(tmp_path, '[app]\nasgi="main:app"\n[interface]\nprocesses = 2\n')
    assert key == "interface.processes"


def test_check_knows_what_polling_needs(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import socketio\nmanager = socketio.AsyncRedisManager('redis://')\n"
        "sio = socketio.AsyncServer(client_manager=manager)\napp = socketio.ASGIApp(sio)\n"
    )
    ((_, _, message),) = warned(tmp_path, WORKERS + "processes = 3\n")
    assert 'add sticky = "sid"' in message
    assert warned(tmp_path, WORKERS + 'processes = 3\nsticky = "sid"\n') == []
    ((_, _, message),) = warned(tmp_path, '[app]\nasgi="main:app"\n[interface]\nprocesses = 2\n')
    assert "[workers.NAME]" in message


def test_a_dictionary_of_channel_layers_for_production_is_no_alarm(tmp_path: Path) -> None:
    (tmp_path / "dev.py").write_text("L = 'channels.layers.InMemoryChannelLayer'\n")
    source = HEAD + "import dev\nL = 'channels_redis.core.RedisChannelLayer'\n"
    assert found(tmp_path, source).kept == []
