"""Rules of channel workers: what they consume, the app that has their consumers, redelivery."""

import os
import re
from collections.abc import Iterator

from chansup.config import channels, relay
from chansup.config.keys import Finding, Key, dotted, quoted
from chansup.config.rules.application import application
from chansup.config.rules.context import Context
from chansup.config.rules.workers import kind
from chansup.config.schema import Workers

_CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,99}\Z")  # what channels.layers lets through
_GLOB = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,200}\Z")
_OF_REDELIVERY = ("max_deliveries", "dead_letters")


def rule(context: Context) -> Iterator[Finding]:
    """Names or globs of channels, an app, and nothing that would have no effect."""
    for name, table in context.config.workers.items():
        key = ("workers", name)
        if kind(context, name) not in channels.KEYS:
            continue
        yield from _one_way_to_choose(name, context)
        for field in channels.KEYS:
            if context.stands(*key, field):
                yield from _names(field, key, getattr(table, field))
        yield from _app(name, table, context)
        yield from _redelivery(name, table, context)
        yield from _backend(name, table, context)


def _one_way_to_choose(name: str, context: Context) -> Iterator[Finding]:
    if not context.stands("workers", name, "channels"):
        return
    for field in ("only_channels", "exclude_channels"):
        if context.stands("workers", name, field):
            message = (
                "stands beside channels: that names the channels, and globs choose among what "
                "the project's ChannelNameRouter has. Keep one of both"
            )
            yield ("workers", name, field), message


def _names(field: str, key: Key, names: list[str]) -> Iterator[Finding]:
    example = '["thumbnails"]' if field == "channels" else '["thumbnails.*"]'
    if not names:
        what = "name" if field == "channels" else "glob"
        yield (*key, field), f"expected at least one {what}, as in {example}"
    for place, name in enumerate(names):
        if field == "channels" and not _CHANNEL.match(name):
            message = (
                f"{quoted(name)} is not a name of a channel: expected letters, digits, "
                '".", "_" and "-", fewer than 100'
            )
            if any(sign in name for sign in "*?["):
                message = f"{quoted(name)} is a glob: write it in only_channels"
            yield (*key, field, place), message
        elif field != "channels" and not _GLOB.match(name):
            message = (
                f"{quoted(name)} can fit no name of a channel, which has letters, digits, "
                '".", "_" and "-"; in a glob also "*", "?" and "[…]"'
            )
            yield (*key, field, place), message
        elif name in names[:place]:
            yield (*key, field, place), f"{quoted(name)} is listed twice: remove one"


def _app(name: str, table: Workers, context: Context) -> Iterator[Finding]:
    yield from application(("workers", name), table.asgi, None)
    if channels.application(context.config, name) is not None:
        return
    app = relay.application(context.config, name)
    found = f", and {dotted(app.key)} is one of WSGI" if app is not None else ""
    message = (
        f"needs the ASGI app that has the consumers{found}: name it here or in [app], "
        'asgi = "mysite.asgi:application"'
    )
    yield ("workers", name), message


def _redelivery(name: str, table: Workers, context: Context) -> Iterator[Finding]:
    key = ("workers", name)
    if not table.redeliver:
        for field in _OF_REDELIVERY:
            if context.stands(*key, field):
                message = "has no effect without redelivery: add redeliver = true, or remove it"
                yield (*key, field), message
    elif context.config.channel_layer.backend != "local":
        message = (
            "needs chansup's own channel layer, which keeps a message until it was handled, and "
            "[channel_layer] backend is another: remove one of both"
        )
        yield (*key, "redeliver"), message
    if table.redeliver and table.dead_letters is not None:
        yield from _dead_letters((*key, "dead_letters"), table.dead_letters, context)


def _dead_letters(key: Key, given: str, context: Context) -> Iterator[Finding]:
    path = os.path.join(context.config_directory, given)
    directory = os.path.dirname(path)
    if not given:
        yield key, "expected the path of a file, found nothing: name one, or remove it for the log"
    elif given.startswith("~"):
        yield key, '"~" is not expanded: write "${HOME}/…"'
    elif os.path.isdir(path):
        yield key, f"{quoted(path, limit=300)} is a directory: name a file in it"
    elif not os.path.isdir(directory):
        what = "is not a directory" if os.path.lexists(directory) else "does not exist: create it"
        yield key, f"{quoted(directory, limit=300)} {what}, or name a file elsewhere"


def _backend(name: str, table: Workers, context: Context) -> Iterator[Finding]:
    """Yield why the site's channel layer has no channels that a worker could consume."""
    layer = context.config.channel_layer
    if table.layer != "default":  # may be another one than the site's
        return
    remedy = (
        'use "local" or Redis, or another layer of CHANNEL_LAYERS for the workers: layer = "NAME"'
    )
    why = None
    if isinstance(layer.backend, str) and layer.backend.startswith(("amqp://", "amqps://")):
        why = "channels_rabbitmq has groups, and channels of one process, but no channels by name"
    elif layer.backend != "local" and layer.options.get("pubsub") is True:
        why = (
            "with pubsub each message goes to all processes that listen at that moment, and to "
            "none if none does"
        )
    if why is not None:
        yield ("workers", name), f"cannot consume from [channel_layer] backend: {why}; {remedy}"
