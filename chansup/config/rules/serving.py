"""Rules of ``serves`` in ``[workers.NAME]``: app workers, and the routes that lead to them."""

from collections.abc import Iterator

from chansup.config import order, relay, routes
from chansup.config.keys import Finding, Key, dotted, listed, quoted
from chansup.config.rules.application import application
from chansup.config.rules.context import Context
from chansup.config.schema import Route, Workers
from chansup.protocol.roster import MAX_POOLS

_OF_PARAMETERS = "<{("  # of Django, of Starlette and Quart, of regular expressions


def pools(context: Context) -> Iterator[Finding]:
    """Each pool of app workers has an app, and nothing that would have no effect."""
    for place, (name, table) in enumerate(relay.app_workers(context.config).items(), start=1):
        key = ("workers", name)
        if table.on_reload not in ("overlap", "auto"):
            message = (
                f"{quoted(table.on_reload)} would leave clients without app workers for a while: "
                'remove it, or write "overlap"'
            )
            yield (*key, "on_reload"), message
        if place >= MAX_POOLS:
            message = f"is one pool too many: {MAX_POOLS - 1} at most can have serves"
            yield (*key, "serves"), message
        yield from application(key, table.asgi, table.wsgi)
        yield from _app(name, table, context)


def _app(name: str, table: Workers, context: Context) -> Iterator[Finding]:
    key = ("workers", name)
    app = relay.application(context.config, name)
    if app is None:
        message = (
            'has no app to run: name it here or in [app], asgi = "mysite.asgi:application" '
            "(or wsgi)"
        )
        yield key, message
        return
    if app.gateway == "asgi":
        if table.threads is not None:
            message = f"is for a WSGI app, and {dotted(app.key)} is none: remove it"
            yield (*key, "threads"), message
    elif (table.concurrency or table.threads or 1) < (table.threads or 1):
        message = (
            f"({table.concurrency}) is below threads ({table.threads}), some of which would "
            "never work: raise it, or remove it"
        )
        yield (*key, "concurrency"), message


def not_after_interface(context: Context) -> Iterator[Finding]:
    """App workers are ready before the interface that leads to them."""
    if not relay.is_relay(context.config):
        return
    needs = order.dependencies(context.config)
    for name, table in relay.app_workers(context.config).items():
        chain = _chain(name, "interface", needs)
        if chain is None:
            continue
        through = f" (through {listed(chain[1:-1], 'and')})" if len(chain) > 2 else ""
        message = (
            f'waits for "interface"{through}, and a reload has app workers ready before it '
            "touches the interface: take it out of after or before"
        )
        field = ("after",) if "interface" in table.after else ()
        yield ("workers", name, *field), message


def _chain(first: str, last: str, needs: dict[str, set[str]]) -> list[str] | None:
    """Return names from `first` to `last` of which each needs the next, or None."""
    chains = [[first]]
    seen = {first}
    for chain in chains:  # grows meanwhile
        for name in sorted(needs.get(chain[-1], ())):
            if name == last:
                return [*chain, name]
            if name not in seen:
                seen.add(name)
                chains.append([*chain, name])
    return None


def entries(context: Context) -> Iterator[Finding]:
    """Every route can be understood, and leads to one pool."""
    taken: dict[routes.Route, tuple[str, Key]] = {}
    for name, table in context.config.workers.items():
        key = ("workers", name, "serves")
        if not table.serves and context.stands(*key):
            yield key, 'expected at least one route, as in ["http", "websocket"]'
        for place, entry in enumerate(table.serves):
            text, at = _written(entry, (*key, place))
            try:
                route = routes.parse(text)
            except ValueError as error:
                yield at, str(error)
                continue
            yield from _type(route.type, at, context)
            if isinstance(entry, Route):
                yield from _effects(route.type, entry, (*key, place))
            if route in taken:
                other, elsewhere = taken[route]
                same = "stands" if other == text else f"fits the same as {quoted(other)}"
                message = f"{quoted(text)} {same} in {dotted(elsewhere)} already: remove one"
                yield at, message
            else:
                taken[route] = text, at


def doubtful(context: Context) -> Iterator[Finding]:
    """Routes that can be understood, and are probably meant otherwise."""
    for name, table in relay.app_workers(context.config).items():
        for place, entry in enumerate(table.serves):
            text, at = _written(entry, ("workers", name, "serves", place))
            route = routes.parse(text)
            if route.host is not None and not _is_plain_host(route.host):
                meant = f"{route.type}:/{text.partition(':')[2]}"
                message = (
                    f"{quoted(text)} serves the host {quoted(route.host)} alone: "
                    f"if that is part of the path, write {quoted(meant)}"
                )
                yield at, message
            if sign := next((sign for sign in _OF_PARAMETERS if sign in (route.path or "")), None):
                message = (
                    f'in {quoted(text)}, "{sign}" is compared as it stands, it begins no '
                    'parameter: a route is a path, or the begin of one and "*"'
                )
                yield at, message


def _is_plain_host(host: str) -> bool:
    return "." in host or host.startswith("[") or host == "localhost"


def _written(entry: str | Route, key: Key) -> tuple[str, Key]:
    return (entry, key) if isinstance(entry, str) else (entry.route, (*key, "route"))


def _type(type_: routes.Type, key: Key, context: Context) -> Iterator[Finding]:
    app = relay.application(context.config, str(key[1]))
    if type_ == "websocket" and app is not None and app.gateway == "wsgi":
        message = (
            f"{dotted(app.key)} is a WSGI app, which has no WebSockets: "
            "serve them in a table of their own, with asgi"
        )
        yield key, message


def _effects(type_: routes.Type, entry: Route, key: Key) -> Iterator[Finding]:
    if type_ == "http" and entry.handover is not None:
        yield (
            (*key, "handover"),
            "is what a deploy does to WebSockets: remove it from an http route",
        )
