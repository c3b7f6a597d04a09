"""What can be seen wrong in the routers of Django Channels, before a client meets it."""

import inspect
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_LEADS_ON = ("inner", "app", "application")  # where middleware keeps what it wraps
_MOST_STEPS = 10_000  # an app may lead back to itself


def missing_protocols(application: Any, protocols: Sequence[str]) -> list[str]:
    """Return those of `protocols` that the app's ProtocolTypeRouter leads nowhere.

    Nothing where the app has no such router, or has it behind something that may choose itself.
    """
    routing = sys.modules.get("channels.routing")
    if routing is None or not isinstance(application, routing.ProtocolTypeRouter):
        return []
    mapping = application.application_mapping
    return [protocol for protocol in protocols if protocol not in mapping]


def bare_consumers(application: Any) -> list[tuple[str, str]]:
    """Return where a router leads to a consumer's class, which cannot be called as an app.

    Each is the route as it is written and the name of the class.
    """
    routing, consumer = sys.modules.get("channels.routing"), sys.modules.get("channels.consumer")
    if routing is None or consumer is None:
        return []
    found: dict[tuple[str, str], None] = {}
    waiting = [("", application)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_STEPS:
        route, one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        # A SyncConsumer is an AsyncConsumer, too.
        if inspect.isclass(one) and issubclass(one, consumer.AsyncConsumer):
            found[route, one.__name__] = None
            seen.discard(id(one))  # another route may lead to it as well
        else:
            waiting.extend(_behind(route, one, routing))
    return sorted(found)


def _behind(route: str, one: Any, routing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(one, routing.ProtocolTypeRouter | routing.ChannelNameRouter):
        for name, inner in one.application_mapping.items():
            yield str(name), inner
    elif isinstance(one, routing.URLRouter):
        for entry in one.routes:
            yield str(getattr(entry, "pattern", route)), getattr(entry, "callback", None)
    elif not inspect.isclass(one):
        for name in _LEADS_ON:
            inner = getattr(one, name, None)
            if callable(inner):
                yield route, inner
