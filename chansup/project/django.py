"""What a Django project says about itself in its files."""

import ast
from pathlib import Path

from chansup.project import sources
from chansup.project.project import ChannelLayer

_VARIABLE = "DJANGO_SETTINGS_MODULE"


def settings_module(path: Path) -> str | None:
    """Return the settings that a manage.py or asgi.py names, as Django's templates do."""
    for node in ast.walk(sources.tree(path)):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            name, value = node.args
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            name, value = node.targets[0].slice, node.value
        else:
            continue
        if _constant(name) == _VARIABLE and (found := _constant(value)):
            return found
    return None


def gateways(root: Path, settings: str | None) -> tuple[str | None, str | None]:
    """Return the ASGI and the WSGI application below `root`, each "module:attribute" or None."""
    found = []
    for kind in ("asgi", "wsgi"):
        found.append(_from_settings(root, settings, kind) or _from_files(root, settings, kind))
    return found[0], found[1]


def _from_settings(root: Path, settings: str | None, kind: str) -> str | None:
    """Return what ASGI_APPLICATION or WSGI_APPLICATION says, if that module exists."""
    for path in settings_files(root, settings):
        dotted = sources.string(sources.tree(path), f"{kind.upper()}_APPLICATION")
        module, _, attribute = (dotted or "").rpartition(".")
        if module and sources.module_path(module, root):
            return f"{module}:{attribute}"
    return None


def _from_files(root: Path, settings: str | None, kind: str) -> str | None:
    """Return the application of an asgi.py or wsgi.py, preferably of the settings' package."""
    package = (settings or "").split(".")[0]
    candidates = [path for path in sources.python_files(root) if path.name == f"{kind}.py"]
    candidates.sort(key=lambda path: path.relative_to(root).parts[0] != package)
    for path in candidates:
        names = [name for name, _ in sources.assignments(sources.tree(path))]
        module = sources.module_name(path, root)
        if module and "application" in names:
            return f"{module}:application"
    return None


def settings_files(root: Path, settings: str | None) -> list[Path]:
    """Return the settings module, and those of its package when it is split over several."""
    path = sources.module_path(settings, root) if settings else None
    if path is None:
        return []
    is_package = path.name == "__init__.py" or path.parent.name == "settings"
    siblings = sorted(path.parent.glob("*.py")) if is_package else []
    return [path, *(sibling for sibling in siblings if sibling != path)]


def channel_layer(root: Path, settings: str | None) -> ChannelLayer | None:
    """Return the kind of layer that CHANNEL_LAYERS configures, or None."""
    text = "\n".join(sources.text(path) for path in settings_files(root, settings))
    if "CHANNEL_LAYERS" not in text:
        return None
    if "chansup.layer" in text:
        return "chansup"
    if "channels_redis" in text:
        return "redis"
    return "memory" if "InMemoryChannelLayer" in text else "other"


def serves_static(root: Path, settings: str | None, asgi: str | None) -> bool:
    """Say whether the project serves its static files itself, through WhiteNoise or in asgi.py."""
    paths = settings_files(root, settings)
    if asgi and (path := sources.module_path(asgi.partition(":")[0], root)):
        paths = [*paths, path]
    words = ("whitenoise", "servestatic", "StaticFilesHandler", "StaticFiles(")
    return any(word in sources.text(path) for path in paths for word in words)


def channels(root: Path) -> list[str]:
    """Return the names that a ChannelNameRouter routes, in the order of the sources."""
    found: dict[str, None] = {}
    for path in sources.python_files(root):
        if "ChannelNameRouter" not in sources.text(path):
            continue
        routers = [
            node
            for node in ast.walk(sources.tree(path))
            if isinstance(node, ast.Call) and sources.called(node) == "ChannelNameRouter"
        ]
        for router in sorted(routers, key=lambda node: node.lineno):
            for argument in [*router.args, *(keyword.value for keyword in router.keywords)]:
                found.update(dict.fromkeys(_routes(argument, path, root)))
    return list(found)


def _routes(argument: ast.expr, path: Path, root: Path) -> list[str]:
    """Return the keys of a dict of routes, wherever in the project it is written."""
    routes, source = sources.resolve(argument, path, root)
    if not isinstance(routes, ast.Dict):
        return []
    keys = [sources.resolve(key, source, root)[0] for key in routes.keys if key is not None]
    return [name for key in keys if (name := _constant(key))]


def _constant(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None
