"""Collections of live connections that outlive a request: what a broadcast goes through.

A collection counts when connections are put into it: a WebSocket, a consumer, or the queue of a
subscriber: one that is taken out again, or that its own function passes on to a client. What else
lives as long (constants, caches, registries of classes, pools of a database) holds no such thing.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from chansup.project import containers, sources
from chansup.project.containers import is_container, last

_ADDS = {"add", "append", "appendleft", "insert", "update", "setdefault", "extend"}
_REMOVES = {"remove", "discard", "pop", "popitem", "popleft"}
_READS = {"get", "receive"}  # from a queue
_SENDS = {"send", "send_text", "send_json", "send_bytes"}  # to a client
_LOOKS = {"setdefault", "get"}  # of a collection of collections
_TYPES = re.compile(
    r"(?i)(web_?socket(connection|serverprotocol|protocol|adapter|response)?|\w*websocketconsumer)\Z"
)
_NAMES = {"websocket", "ws", "web_socket"}  # of what nobody annotates
_QUEUES = {"Queue", "LifoQueue", "PriorityQueue", "SimpleQueue", "create_memory_object_stream"}
_ENDPOINTS = ("WebsocketConsumer", "HttpConsumer", "WebSocketEndpoint", "WebSocketHandler")
_WORDS = ("ebsocket", "ebSocket", "ws", "Queue", "receive", "Consumer", "memory_object_stream")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Collection(msgspec.Struct, frozen=True):
    """One collection, at the line where something is put into it, or where it is made."""

    name: str
    path: Path
    line: int

    def place(self, root: Path) -> str:
        """Return where it stands, seen from `root`."""
        return f"{self.path.relative_to(root).as_posix()}:{self.line}"


def find(paths: list[Path], root: Path) -> list[Collection]:
    """Return the collections of live connections in some files, each once."""
    relevant = [path for path in paths if any(word in sources.text(path) for word in _WORDS)]
    attributes = {name for path in paths for name in containers.attributes(sources.tree(path))}
    found: dict[tuple[Path, str], Collection] = {}
    for path in relevant:
        for one in _Module(path, root, attributes).collections():
            found.setdefault((one.path, one.name), one)
    return list(found.values())


class _Module:
    """One file: walked function by function."""

    def __init__(self, path: Path, root: Path, attributes: set[str]) -> None:
        self.path = path
        self._root = root
        self.attributes = attributes
        self.tree = sources.tree(path)
        self.proxies = _proxies(self.tree)
        of_channels = ("Consumer",) if "channels" in sources.text(path) else ()
        self.endpoints = (*_ENDPOINTS, *of_channels)

    def collections(self) -> Iterator[Collection]:
        """Yield the collections that its functions put connections into, or that are typed so."""
        for name, line in _typed(self.tree):
            yield Collection(name, self.path, line)
        for function, owner, around in _functions(self.tree):
            yield from _Body(self, function, owner, around).collections()

    def module_level(self, name: str) -> tuple[Path, int] | None:
        """Return where a collection of that name is made: in this module, or in an imported one."""
        value, path = sources.resolve(ast.Name(name), self.path, self._root)
        return (path, value.lineno) if is_container(value) else None


def _typed(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield what lasts and is annotated as a collection of connections: name and line."""
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    of_instances = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute)
    ]
    for node in [*(one for body in bodies for one in body), *of_instances]:
        if isinstance(node, ast.AnnAssign) and _holds_connections(node.annotation):
            name = last(node.target)
            if name is not None:
                yield name, node.lineno


def _holds_connections(annotation: ast.expr) -> bool:
    """Whether it is the type of a collection of WebSockets: dict[str, set[WebSocket]]."""
    if not isinstance(annotation, ast.Subscript) or not is_container(annotation):
        return False
    inner = annotation.slice
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    return any(_is_connection_type(part) or _holds_connections(part) for part in parts)


def _proxies(tree: ast.Module) -> set[str]:
    """Return names under which a module has the WebSocket of the moment: Quart's `websocket`."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "quart"
        for alias in node.names
        if alias.name == "websocket"
    }


def _functions(
    tree: ast.Module,
) -> Iterator[tuple[_Function, ast.ClassDef | None, list[_Function]]]:
    """Yield each function with the class whose method it is, and the functions around it."""

    def walk(
        node: ast.AST, owner: ast.ClassDef | None, around: list[_Function]
    ) -> Iterator[tuple[_Function, ast.ClassDef | None, list[_Function]]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from walk(child, child, [])
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child, owner, around
                yield from walk(child, owner, [*around, child])
            else:
                yield from walk(child, owner, around)

    yield from walk(tree, None, [])


class _Body:
    """One function: which of its names are connections, and what it puts where."""

    def __init__(
        self,
        module: _Module,
        function: _Function,
        owner: ast.ClassDef | None,
        around: list[_Function],
    ) -> None:
        self._module = module
        self._function = function
        self._owner = owner
        self._is_endpoint = owner is not None and any(
            (last(base) or "").endswith(module.endpoints) for base in owner.bases
        )
        self._nodes = list(_own_nodes(function))
        scopes = [function, *around]
        self._parameters = {name for scope in scopes for name in _connections_of(scope)}
        self._locals = {name for scope in scopes for name in _all_parameters(scope)}
        self._own = _assigned(function)
        self._around = {name: value for scope in around for name, value in _assigned(scope).items()}
        self._shared = {  # what an app factory makes, for the handlers in it
            name: value.lineno
            for scope in around
            if not _connections_of(scope)
            for name, value in _assigned(scope).items()
            if is_container(value)
        }
        self._globals = {
            name
            for node in self._nodes
            if isinstance(node, ast.Global | ast.Nonlocal)
            for name in node.names
        }
        self._assigned = {**self._around, **self._own}

    def collections(self) -> Iterator[Collection]:
        for base, values, line in self._puts():
            is_live = any(self._is_connection(value) for value in values)
            if not is_live and any(self._is_queue(value) for value in values):
                is_live = self._takes_out(base) or any(map(self._reads, values))
            if is_live and (found := self._lasting(base, line)) is not None:
                yield found

    def _puts(self) -> Iterator[tuple[ast.expr, list[ast.expr], int]]:
        """Yield the members put into something: the collection's expression, and the values."""
        for node in self._nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in _ADDS:
                    values = [*node.args, *(word.value for word in node.keywords)]
                    yield node.func.value, values, node.lineno
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Subscript):
                        yield target.value, [node.value, target.slice], node.lineno
                    elif isinstance(node.value, ast.BinOp):  # connections = connections + [one]
                        yield target, [node.value.right], node.lineno
            elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.BitOr):
                yield node.target, [node.value], node.lineno

    # Whether it is a connection

    def _is_connection(self, value: ast.expr, hops: int = 3) -> bool:
        match value:
            case ast.Name(id=name):
                if name in self._parameters or (name == "self" and self._is_endpoint):
                    return True
                if name in self._assigned and hops:
                    return self._is_connection(self._assigned[name], hops - 1)
                return name in self._module.proxies and name not in self._locals
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return name in _NAMES or (self._is_endpoint and name == "channel_name")
            case ast.Tuple() | ast.List() | ast.Set():
                return any(self._is_connection(one, hops) for one in value.elts)
            case ast.Dict():
                parts = [*value.values, *(key for key in value.keys if key is not None)]
                return any(self._is_connection(one, hops) for one in parts)
            case ast.Call():
                return self._wraps_connection(value, hops)
        return False

    def _wraps_connection(self, call: ast.Call, hops: int) -> bool:
        """Whether a call makes an object around a connection: Player(websocket)."""
        name = sources.called(call) or ""
        if name == "_get_current_object" and isinstance(call.func, ast.Attribute):
            return self._is_connection(call.func.value, hops)
        if name in ("ref", "proxy") or name.lstrip("_")[:1].isupper():
            values = [*call.args, *(word.value for word in call.keywords)]
            return any(self._is_connection(one, hops) for one in values)
        return False

    def _is_queue(self, value: ast.expr) -> bool:
        """Whether it is a queue that this function made: one of a subscriber, perhaps."""
        if isinstance(value, ast.Tuple | ast.List | ast.Set):
            return any(self._is_queue(one) for one in value.elts)
        is_class = (sources.called(value) or "").lstrip("_")[:1].isupper()
        if isinstance(value, ast.Call) and is_class and any(map(self._is_queue, value.args)):
            return True
        made = self._assigned.get(value.id) if isinstance(value, ast.Name) else None
        if isinstance(made, ast.Call) and isinstance(made.func, ast.Subscript):
            return last(made.func.value) in _QUEUES
        return made is not None and sources.called(made) in _QUEUES

    def _reads(self, value: ast.expr) -> bool:
        """Whether this function, or one in it, passes on to a client what comes to its queue."""
        if not isinstance(value, ast.Name):
            return False
        is_read = is_passed_on = False
        for node in ast.walk(self._function):
            if isinstance(node, ast.Yield):
                is_passed_on = True
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                receiver = node.func.value
                of_queue = isinstance(receiver, ast.Name) and receiver.id == value.id
                is_read |= of_queue and node.func.attr in _READS
                is_passed_on |= node.func.attr in _SENDS
        return is_read and is_passed_on

    def _takes_out(self, base: ast.expr) -> bool:
        """Whether the same function, or another of its class or module, takes something out."""
        name = last(self._stripped(base))
        around = self._owner or self._module.tree
        for node in ast.walk(around):
            taken: ast.expr | None = None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                taken = node.func.value if node.func.attr in _REMOVES else None
            elif isinstance(node, ast.Delete):
                first = node.targets[0]
                taken = first.value if isinstance(first, ast.Subscript) else None
            elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Sub):
                taken = node.target
            if taken is not None and last(self._stripped(taken)) == name:
                return True
        return False

    # Whether it lasts

    def _stripped(self, base: ast.expr, hops: int = 4) -> ast.expr:
        """Return the collection of a collection: rooms of rooms[name], of rooms.get(name)."""
        if not hops:
            return base
        if isinstance(base, ast.Subscript):
            return self._stripped(base.value, hops - 1)
        if isinstance(base, ast.Call) and sources.called(base) in _LOOKS:
            inner = base.func.value if isinstance(base.func, ast.Attribute) else base
            return self._stripped(inner, hops - 1)
        if isinstance(base, ast.Name) and base.id not in self._globals:
            value = self._assigned.get(base.id)
            is_look = isinstance(value, ast.Subscript | ast.Call | ast.Attribute | ast.Name)
            if value is not None and is_look and not is_container(value):
                return self._stripped(value, hops - 1)
        return base

    def _lasting(self, base: ast.expr, line: int) -> Collection | None:
        """Return the collection, if it outlives the connection."""
        base = self._stripped(base)
        path = self._module.path
        if isinstance(base, ast.Name):
            if base.id in self._shared and (base.id not in self._own or base.id in self._globals):
                return Collection(base.id, path, self._shared[base.id])
            is_local = base.id in self._assigned or base.id in self._locals
            if is_local and base.id not in self._globals:
                return None
            made = self._module.module_level(base.id)
            return None if made is None else Collection(base.id, *made)
        if not isinstance(base, ast.Attribute) or base.attr not in self._module.attributes:
            return None
        if self._is_endpoint and self._is_of_instance(base):
            return None
        return Collection(base.attr, path, line)

    def _is_of_instance(self, base: ast.Attribute) -> bool:
        """Whether each connection has a collection of its own: self.x, made by the instance."""
        assert self._owner is not None
        if not isinstance(base.value, ast.Name) or base.value.id != "self":
            return False
        return any(
            isinstance(target, ast.Attribute)
            and target.attr == base.attr
            and isinstance(target.value, ast.Name)
            and target.value.id == "self"
            for node in ast.walk(self._owner)
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )


def _assigned(function: _Function) -> dict[str, ast.expr]:
    """Return what a function assigns to its names, the last value of each."""
    found: dict[str, ast.expr] = {}
    for node in _own_nodes(function):
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name):
                found[target.id] = node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Call):
                for one in target.elts:  # send, receive = create_memory_object_stream()
                    if isinstance(one, ast.Name):
                        found[one.id] = node.value
    return found


def _own_nodes(function: _Function) -> Iterator[ast.AST]:
    """Yield the nodes of a function, without those of functions and classes in it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))


def _arguments(function: _Function) -> list[ast.arg]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return every + [one for one in (arguments.vararg, arguments.kwarg) if one is not None]


def _all_parameters(function: _Function) -> set[str]:
    return {argument.arg for argument in _arguments(function)}


def _connections_of(function: _Function) -> set[str]:
    """Return the parameters that are connections: by annotation, or by a usual name without one."""
    found = {
        argument.arg
        for argument in _arguments(function)
        if (argument.annotation is None and argument.arg in _NAMES)
        or (argument.annotation is not None and _is_connection_type(argument.annotation))
    }
    names = [argument.arg for argument in function.args.args]
    if names[-3:] == ["scope", "receive", "send"]:  # of a plain ASGI app
        found.add("send")
    return found


def _is_connection_type(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return bool(_TYPES.match(annotation.value.rpartition(".")[2].strip()))
    if isinstance(annotation, ast.BinOp):  # WebSocket | None
        return _is_connection_type(annotation.left) or _is_connection_type(annotation.right)
    if isinstance(annotation, ast.Subscript):  # Optional[WebSocket], Annotated[WebSocket, …]
        first = annotation.slice
        first = first.elts[0] if isinstance(first, ast.Tuple) and first.elts else first
        outer = last(annotation.value)
        return outer in ("Optional", "Annotated") and _is_connection_type(first)
    return bool(_TYPES.match(last(annotation) or ""))
