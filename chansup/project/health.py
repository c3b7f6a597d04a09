"""Finds the page that a project answers when somebody asks whether it is well."""

import ast
from collections.abc import Iterable
from pathlib import Path

from chansup.project import django, sources

_NAMES = (
    "health", "healthz", "healthcheck", "health-check", "health_check", "readyz", "ready", "livez",
    "ping", "up", "ht",
)  # fmt: skip
_DJANGO_ROUTES = ("path", "re_path", "url")
_ROUTES = ("Route", "get", "route", "api_route")  # of Starlette; decorators of an app


def of_django(root: Path, settings: str | None) -> str | None:
    """Return the path of a health page that ROOT_URLCONF itself names, as "/health/"."""
    for path in django.settings_files(root, settings):
        module = sources.string(sources.tree(path), "ROOT_URLCONF")
        urls = sources.module_path(module, root) if module else None
        if urls is not None:
            return _best(
                f"/{route.lstrip('^').rstrip('$')}"
                for route in _first_arguments(sources.tree(urls), _DJANGO_ROUTES)
            )
    return None


def of_framework(root: Path, application: str) -> str | None:
    """Return the path of a health page that the module of an app names, as "/health"."""
    module, _, name = application.partition(":")
    path = sources.module_path(module, root)
    if path is None:
        return None
    return _best(_first_arguments(sources.tree(path), _ROUTES, name))


def _first_arguments(
    module: ast.Module, functions: tuple[str, ...], owner: str | None = None
) -> list[str]:
    """Return the first arguments of calls; of methods, only those of `owner`."""
    found = []
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or not node.args or sources.called(node) not in functions:
            continue
        if isinstance(node.func, ast.Attribute) and owner is not None:
            called_on = node.func.value
            if not isinstance(called_on, ast.Name) or called_on.id != owner:
                continue  # of a router, which may have a prefix
        route = node.args[0]
        if isinstance(route, ast.Constant) and isinstance(route.value, str):
            found.append(route.value)
    return found


def _best(routes: Iterable[str]) -> str | None:
    named = {route.strip("/").removeprefix("-/"): route for route in routes}
    return next((named[name] for name in _NAMES if name in named), None)
