"""The description of a project."""

from pathlib import Path
from typing import Literal

import msgspec

from chansup.config.session_packages import Package
from chansup.project.in_process import Findings
from chansup.project.web_line import WebLine

ChannelLayer = Literal["chansup", "redis", "memory", "other"]


class Program(msgspec.Struct, frozen=True):
    """One line of a Procfile."""

    name: str
    command: str | list[str]


class Consumer(msgspec.Struct, frozen=True):
    """One line of a Procfile that ran Channels' own worker."""

    name: str
    channels: list[str]
    layer: str = "default"


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project as its files show it."""

    directory: Path  # absolute; where chansup.toml will stand
    app_directory: str = "."  # where the app is imported from, relative to `directory`
    asgi: str | None = None  # "mysite.asgi:application"
    wsgi: str | None = None  # where there is no asgi
    is_django: bool = False
    settings: str | None = None  # DJANGO_SETTINGS_MODULE
    has_websockets: bool = False  # only looked for where there is an asgi
    session_packages: list[Package] = []  # whose WebSockets have a session of their own
    in_process: Findings = Findings()  # what one process keeps, and others would miss
    health: str | None = None  # a page that says whether the app is well: "/health/"
    serves_static: bool = False  # the app itself serves its static files
    channels: list[str] = []  # that consumers are routed to by name
    channel_layer: ChannelLayer | None = None  # that the settings name; None: they name none
    has_env_file: bool = False
    python: str | None = None  # of a virtual environment, relative to `app_directory`
    python_has_chansup: bool = False
    programs: list[Program] = []  # of a Procfile, without web, release and consumers
    consumers: list[Consumer] = []  # of a Procfile
    web: WebLine | None = None  # of a Procfile
    others: list[str] = []  # apps in the same directory that were not taken
    release: str | list[str] | None = None  # the Procfile's release command

    @property
    def handover(self) -> Literal["transparent", "close"]:
        """What a deploy is to do to its WebSockets, beyond what chansup recognises."""
        unknown = any(not package.is_recognised for package in self.session_packages)
        return "close" if unknown else "transparent"

    @property
    def has_channels(self) -> bool:
        """Whether this is a project of Django Channels."""
        return self.is_django and bool(
            self.has_websockets or self.channels or self.consumers or self.channel_layer
        )
