"""Shows what a Django project logs at ERROR when its LOGGING shows it nowhere.

Django's own default writes to the console with DEBUG alone, and else mails to ADMINS: with neither,
a page that fails leaves no line anywhere. Source: django.utils.log.DEFAULT_LOGGING.
"""

import logging
import sys
from typing import Any

from chansup.log_lines import OneLineFormatter

_LOGGER = "django"  # its `django.request` logs unhandled exceptions
_FORMAT = "%(levelname)s %(name)s: %(message)s"


def show_errors() -> bool:
    """Write errors of a Django project that was set up to stderr, unless something does so already.

    Returns whether that was needed.
    """
    registry = sys.modules.get("django.apps")
    if registry is None or not registry.apps.ready:
        return False
    if any(_writes(handler) for handler in _handlers(f"{_LOGGER}.request")):
        return False
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.ERROR)
    handler.setFormatter(OneLineFormatter(_FORMAT))
    logging.getLogger(_LOGGER).addHandler(handler)
    return True


def _handlers(name: str) -> list[logging.Handler]:
    """Return the handlers that a record of the logger reaches."""
    found: list[logging.Handler] = []
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found


def _writes(handler: logging.Handler) -> bool:
    """Whether an error would leave a trace through this handler."""
    record = logging.LogRecord(
        f"{_LOGGER}.request", logging.ERROR, __file__, 0, "a page failed", (), None
    )
    if handler.level > record.levelno or isinstance(handler, logging.NullHandler):
        return False
    if _mails_to_nobody(handler):
        return False
    try:
        return bool(handler.filter(record))
    except Exception:  # a filter of the project's that wants a request
        return True


def _mails_to_nobody(handler: logging.Handler) -> bool:
    from django.conf import settings

    mails: Any = sys.modules.get("django.utils.log")
    return (
        mails is not None and isinstance(handler, mails.AdminEmailHandler) and not settings.ADMINS
    )
