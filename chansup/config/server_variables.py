"""The environment variables that servers read, and those that only their own command lines do.

A site has them in an env file or in ``[app] environment``. In relay mode the server runs without
these, so what it reads itself is passed on to it. What it does not read under chansup has another
name here, which `chansup check` tells.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

_TRUSTED = "FORWARDED_ALLOW_IPS"

READ: dict[str, tuple[str, ...]] = {  # by the server, however it is started
    "uvicorn": (_TRUSTED,),
    "granian": (),
    "hypercorn": (),
    "daphne": ("ASGI_THREADS",),
    "gunicorn": (_TRUSTED, "SCRIPT_NAME", "SENDFILE"),
}
_OPTIONS = "write its options into [interface.options]"
_PROCESSES = "write [interface] processes"
_BIND = "write [interface] bind"
UNREAD: dict[str, dict[str, str]] = {  # globs of names, and what to write instead
    "uvicorn": {"UVICORN_*": _OPTIONS, "WEB_CONCURRENCY": _PROCESSES},
    "granian": {"GRANIAN_*": _OPTIONS, _TRUSTED: "wrap the app, see docs/servers.md"},
    "hypercorn": {_TRUSTED: "wrap the app, see docs/servers.md"},
    "daphne": {_TRUSTED: "write proxy_headers = true into [interface.options]"},
    "gunicorn": {
        "GUNICORN_CMD_ARGS": _OPTIONS,
        "WEB_CONCURRENCY": _PROCESSES,
        "PORT": _BIND,
    },
}
# A platform sets these for everybody, and the config reads them where it wants to.
OF_PLATFORMS = ("WEB_CONCURRENCY", "PORT")


def passed_on(server: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a server of relay mode gets of the app's environment: what it reads itself."""
    return {name: environment[name] for name in READ[server] if name in environment}


def unread(server: str, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the variables that the server would read elsewhere, and what to write instead."""
    for name in sorted(names):
        for glob, remedy in UNREAD[server].items():
            if fnmatchcase(name, glob):
                yield name, remedy
                break
