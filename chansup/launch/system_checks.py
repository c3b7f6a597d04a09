"""Proves a Django app before it serves: imports its URLs and runs its system checks.

These are the checks of `manage.py check`, without those for deployment and for databases. Apps of
other frameworks are left alone: nobody has agreed there on what such a check would be.
"""

import importlib
import os
import sys
from typing import Any, NamedTuple

from chansup import tracebacks
from chansup.launch import frames

_SHOWN = 3  # errors in the message itself; the details have all of them


class Failure(NamedTuple):
    """Why the app would not work, and the traceback or Django's own list."""

    message: str
    details: str


class Outcome(NamedTuple):
    """What the checks said. `warnings` is how many there are that do not fail."""

    failure: Failure | None = None
    warnings: int = 0


def run() -> Outcome:
    """Import ROOT_URLCONF and run the checks, if the app that was imported is a Django one.

    Call this after the import of the app, and outside of an event loop: views may ask the database
    while they are imported.
    """
    if not _is_django():
        return Outcome()
    from django.conf import settings

    urls = getattr(settings, "ROOT_URLCONF", None)
    if isinstance(urls, str) and urls:
        try:
            importlib.import_module(urls)
        except (Exception, SystemExit) as error:
            return Outcome(_failed(f'importing ROOT_URLCONF "{urls}" failed', error))
    try:
        return _checks()
    except (Exception, SystemExit) as error:
        return Outcome(_failed("Django's system checks failed", error))


def _is_django() -> bool:
    """Whether Django was set up by the app's import: get_asgi_application() does so, and others."""
    registry = sys.modules.get("django.apps")
    return registry is not None and bool(registry.apps.ready)


def _checks() -> Outcome:
    from django.core import checks

    found: list[Any] = [message for message in checks.run_checks() if not message.is_silenced()]
    errors = [message for message in found if message.is_serious()]
    if not errors:
        return Outcome(warnings=sum(message.level >= checks.WARNING for message in found))
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    shown = "; ".join(str(message).partition("\n")[0] for message in errors[:_SHOWN])
    more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    details = "\n".join(str(message) for message in errors)
    return Outcome(
        Failure(
            f"Django's system checks found {count}: {shown}{more}",
            f"Django's system checks found {count}:\n\n{details}\n\n",
        )
    )


def _failed(what: str, error: BaseException) -> Failure:
    place = frames.place(error, os.getcwd())
    return Failure(
        f"{what}{place}: {tracebacks.last_line(error)}",
        tracebacks.trimmed(error, frames.are_on_the_way),
    )
