"""What `chansup check` asks an interpreter about a server, its options and the app, and the answer.

Both travel as one JSON document, to stdin and from the last line of stdout.
"""

import msgspec

VARIABLE = "CHANSUP_QUESTION"  # where a reload puts one that has no stdin


class Consumption(msgspec.Struct, frozen=True):
    """What a pool of channel workers wants of the app and of its settings."""

    pool: str
    channels: list[str]
    only: list[str]
    exclude: list[str]
    layer: str
    redeliver: bool


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the probe is asked; most fields are those of `protocol.launch.Launch`."""

    server: str  # "relay": of app workers; "channels": of channel workers
    gateway: str  # "asgi" | "wsgi"
    application: str  # "package.module:attribute"; empty: only the server is asked for
    options: dict[str, object]
    directory: str  # absolute
    key: str = ""  # of what names the app, or the server where there is no app; dotted
    consumption: list[Consumption] = []
    system_checks: bool = False  # run those of a Django app
    relayed: list[str] | None = None  # routes to app workers; None: the server runs the app
    protocols: list[str] = []  # what clients can ask the app for: "http", "websocket"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with the app, the server or its options."""

    key: str  # of the config file, dotted
    message: str
    traceback: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What the probe found."""

    problems: list[Finding] = []
    notes: list[str] = []
    routed: list[str] = []  # the channels that the app has consumers for
    consumed: list[str] = []  # those that the pools asked about take
    warnings: list[Finding] = []  # what works, and is probably not meant
    session_modules: list[str] = []  # imported, of `config.session_packages`
