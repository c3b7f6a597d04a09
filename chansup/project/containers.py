"""Which expressions of a program make or name a collection, and which attributes are one."""

import ast
from collections.abc import Iterator

from chansup.project import sources

_CONTAINERS = {
    "set", "list", "dict", "deque", "defaultdict", "OrderedDict", "WeakSet", "WeakValueDictionary",
    "WeakKeyDictionary",
}  # fmt: skip


def attributes(module: ast.Module) -> Iterator[str]:
    """Yield the attributes that a module gives a collection: self.x = set(), class C: x = []."""
    for node in ast.walk(module):
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign):
            targets, value = [node.target], node.value or node.annotation
        else:
            continue
        if not is_container(value):
            continue
        yield from (target.attr for target in targets if isinstance(target, ast.Attribute))
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            yield from _of_class(node)
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Dict):
            yield from _of_lifespan(node.value)


def is_container(value: ast.expr | None) -> bool:
    """Whether it makes a collection, or is the annotation of one."""
    if isinstance(value, ast.Subscript):  # an annotation: list[WebSocket]
        return last(value.value) in _CONTAINERS | {"List", "Set", "Dict", "DefaultDict"}
    if isinstance(value, ast.Call) and sources.called(value) == "field":
        return any(last(word.value) in _CONTAINERS for word in value.keywords)
    displays = (ast.List, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp)
    if isinstance(value, displays):
        return True
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Subscript):  # set[WebSocket]()
        return last(value.func.value) in _CONTAINERS
    return value is not None and sources.called(value) in _CONTAINERS


def last(node: ast.expr) -> str | None:
    """Return the last name of an expression: `b` of a.b."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def _of_class(node: ast.ClassDef) -> Iterator[str]:
    """Yield the collections that a class itself has, or a field of a dataclass."""
    for statement in node.body:
        if isinstance(statement, ast.Assign) and is_container(statement.value):
            yield from (one.id for one in statement.targets if isinstance(one, ast.Name))
        elif isinstance(statement, ast.AnnAssign) and is_container(
            statement.value or statement.annotation
        ):
            yield from (one.id for one in [statement.target] if isinstance(one, ast.Name))


def _of_lifespan(state: ast.Dict) -> Iterator[str]:
    """Yield the collections in what a lifespan of Starlette's yields: {"clients": set()}."""
    for key, value in zip(state.keys, state.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and is_container(value):
            yield key.value
