"""From a directory to a description of the project in it."""

import os
import sys
from pathlib import Path

from msgspec.structs import replace

from chansup.config import runworker
from chansup.project import (
    django,
    frameworks,
    health,
    in_process,
    procfile,
    sessions,
    sources,
    web_line,
    websockets,
)
from chansup.project.errors import NothingFoundError, SeveralFoundError
from chansup.project.project import Consumer, Project

_ENVIRONMENTS = (".venv", "venv", "env")


def discover(directory: str | os.PathLike[str]) -> Project:
    """Return what the files of a directory say; raises NothingFoundError if that is nothing.

    A ``current`` symlink, as deploy tools leave it, is followed, but named as such in the result.
    """
    sources.text.cache_clear()
    sources.tree.cache_clear()
    base = Path(os.path.abspath(directory))
    found = _django(base) or _framework(base)
    current = base / "current"
    if found is None and current.is_symlink() and current.is_dir():
        found = _within(current, "current")
    if found is None:
        if len(several := _manage_files_below(base)) > 1:
            raise SeveralFoundError(base, [path.relative_to(base).as_posix() for path in several])
        raise NothingFoundError(base)
    return found


def _within(directory: Path, name: str) -> Project | None:
    """Return the project of a subdirectory, as seen from the one around it."""
    found = _django(directory) or _framework(directory)
    if found is None:
        return None
    inner = found.app_directory
    return replace(
        found,
        directory=directory.parent,
        app_directory=name if inner == "." else f"{name}/{inner}",
    )


def _django(base: Path) -> Project | None:
    manage = _manage_file(base)
    if manage is None:
        return None
    root = manage.parent
    settings = django.settings_module(manage)
    asgi, wsgi = django.gateways(root, settings)
    if asgi is None and wsgi is None:
        return None
    return _project(
        base,
        root,
        Project(
            directory=base,
            asgi=asgi,
            wsgi=None if asgi else wsgi,
            is_django=True,
            settings=settings,
            health=health.of_django(root, settings),
            serves_static=django.serves_static(root, settings, asgi),
            channels=django.channels(root),
            channel_layer=django.channel_layer(root, settings),
        ),
    )


def _manage_file(base: Path) -> Path | None:
    """Return manage.py: here, or in the only subdirectory that has one."""
    if (base / "manage.py").is_file():
        return base / "manage.py"
    below = _manage_files_below(base)
    return below[0] if len(below) == 1 else None


def _manage_files_below(base: Path) -> list[Path]:
    return [
        path
        for path in sorted(base.glob("*/manage.py"))
        if not path.parent.name.startswith(".") and not path.parent.is_symlink()
    ]


def _framework(base: Path) -> Project | None:
    found = frameworks.find(base)
    if not found:
        return None
    root, kind, application = found[0]
    is_asgi = kind == "asgi"
    project = Project(
        directory=base,
        asgi=application if is_asgi else None,
        wsgi=None if is_asgi else application,
        health=health.of_framework(base / root, application),
        channels=django.channels(base / root) if is_asgi else [],
        others=[one.application for one in found[1:]],
    )
    return _project(base, base / root, project)


def _project(base: Path, root: Path, project: Project) -> Project:
    """Return the project with what its surroundings add."""
    programs = procfile.read(base)
    web = programs.pop("web", None)  # what chansup itself does
    release = programs.pop("release", None)
    found = {name: runworker.find(program.command) for name, program in programs.items()}
    consumers = [
        Consumer(name, one.channels, one.layer)
        for name, one in found.items()
        if one is not None and one.is_plain and project.is_django and project.asgi is not None
    ]
    for consumer in consumers:
        del programs[consumer.name]
    consumed = {name for one in found.values() if one is not None for name in one.channels}
    python, has_chansup = _python(base, root)
    session_packages = sessions.packages(root) if project.asgi is not None else []
    has_websockets = project.asgi is not None and websockets.used(root)
    return replace(
        project,
        app_directory=root.relative_to(base).as_posix(),
        has_websockets=has_websockets or bool(session_packages),
        session_packages=session_packages,
        in_process=in_process.find(root, project.asgi or project.wsgi),
        has_env_file=(root / ".env").is_file(),
        python=python,
        python_has_chansup=has_chansup,
        programs=list(programs.values()),
        release=release.command if release else None,
        consumers=consumers,
        web=web_line.read(_written(web.command)) if web is not None else None,
        channels=[channel for channel in project.channels if channel not in consumed],
    )


def _written(command: str | list[str]) -> str:
    """Return a command of a Procfile without the shell that was put around it."""
    return command if isinstance(command, str) else command[-1].removeprefix("exec ")


def _python(base: Path, root: Path) -> tuple[str | None, bool]:
    """Return the interpreter of the project's virtual environment, and whether it has chansup.

    None where there is no such environment, or where it is the one that this runs in.
    """
    for parent in dict.fromkeys((root, base)):
        for name in _ENVIRONMENTS:
            environment = parent / name
            python = environment / "bin" / "python"
            if not (environment / "pyvenv.cfg").is_file() or not os.access(python, os.X_OK):
                continue
            if os.path.realpath(environment) == os.path.realpath(sys.prefix):
                return None, True
            packages = environment.glob("lib/python*/site-packages/*chansup*")
            return os.path.relpath(python, root), any(packages)
    return None, False
