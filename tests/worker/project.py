"""A Django project with consumers, which write down what they do, and whoever sends to them."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.layer.hubs import Hub
from tests.running import Running, running

SETTINGS = """
import json, os
from pathlib import Path

SECRET_KEY = "x"
INSTALLED_APPS = ["channels", "work"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent.parent / "db"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
CHANNEL_LAYERS = json.loads(os.environ["LAYERS"])
LOGGING_CONFIG = None
"""

ASGI = """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from channels.middleware import BaseMiddleware
from channels.routing import ChannelNameRouter, ProtocolTypeRouter
from work import consumers

application = ProtocolTypeRouter({
    "http": django_application,
    "channel": BaseMiddleware(ChannelNameRouter({
        "thumbnails": consumers.Async.as_asgi(),
        "thumbnails.large": consumers.Async.as_asgi(),
        "mail": consumers.Sync.as_asgi(),
        "mail.slow": consumers.Sync.as_asgi(),
    })),
})
"""

MODELS = """
from django.db import models


class Work(models.Model):
    number = models.IntegerField()
    backend = models.TextField()

    class Meta:
        app_label = "work"
"""

CONSUMERS = '''
"""What a message asks for: number, and before it is written down as done, seconds, wait_for, fail, next, die."""

import asyncio, os, signal, threading, time

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import StopConsumer


def write(word, message):
    line = f"{word} {message['number']} {os.getpid()} {threading.get_ident()}\\n"
    descriptor = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def act(message):
    if message.get("fail"):
        raise ArithmeticError(f"cannot do {message['number']}")
    if message.get("next"):
        next(iter(()))
    if message.get("exit"):
        raise SystemExit(3)
    if message.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if message.get("stop"):
        write("done", message)
        raise StopConsumer
    write("done", message)


class Async(AsyncConsumer):
    async def work(self, message):
        write("begin", message)
        await asyncio.sleep(message.get("seconds", 0))
        while "wait_for" in message and not os.path.exists(message["wait_for"]):
            await asyncio.sleep(0.01)
        act(message)

    count_of_messages = 0

    async def count(self, message):
        self.count_of_messages += 1
        write(str(self.count_of_messages), message)

    async def calm(self, message):
        write("begin", message)
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            if "raises" in message:
                raise ValueError

    async def say(self, message):
        await self.send({"type": "x"})

    async def meet(self, message):
        """Wait until so many others are here."""
        write("begin", message)
        while open("journal").read().count("begin ") < message["others"]:
            await asyncio.sleep(0.01)
        write("done", message)


class Sync(SyncConsumer):
    def work(self, message):
        write("begin", message)
        time.sleep(message.get("seconds", 0))
        while "wait_for" in message and not os.path.exists(message["wait_for"]):
            time.sleep(0.01)
        act(message)

    def meet(self, message):
        write("begin", message)
        while open("journal").read().count("begin ") < message["others"]:
            time.sleep(0.01)
        write("done", message)

    def store(self, message):
        from django.db import connection
        from work.models import Work

        held = connection.connection is not None
        Work.objects.create(number=message["number"], backend=f"{threading.get_ident()} {held}")
        write("done", message)
'''

SENDER = """
import asyncio, json, os, sys

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer


async def main():
    layer = get_channel_layer()
    for channel, message in json.load(sys.stdin):
        while True:
            try:
                await layer.send(channel, message)
                break
            except ChannelFull:
                await asyncio.sleep(0.02)


asyncio.run(main())
"""

CONFIG = """
[app]
asgi = "mysite.asgi:application"

[rollout]
stop_timeout = 15

"""


class Project:
    """The project in one directory, and its journal."""

    def __init__(self, directory: Path, layer: dict[str, Any]) -> None:
        self.directory = directory
        self.environment = {"LAYERS": json.dumps({"default": layer})}

    @property
    def _environ(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    @contextmanager
    def running(self, tables: str, before: str = CONFIG) -> Iterator[Running]:
        """Run chansup with these tables of workers."""
        with running(self.directory, before + tables, self.environment) as run:
            run.wait_until_ready()
            yield run

    def send(self, channel: str, *messages: dict[str, Any]) -> None:
        """Send messages from a process of their own, as a web process would."""
        self.send_all((channel, message) for message in messages)

    def send_all(self, messages: Iterable[tuple[str, dict[str, Any]]]) -> None:
        subprocess.run(
            [sys.executable, "-c", SENDER],
            cwd=self.directory,
            env=self._environ,
            input=json.dumps([(channel, {"type": "work", **rest}) for channel, rest in messages]),
            text=True,
            check=True,
            timeout=60,
        )

    def python(self, script: str) -> str:
        """Run a script in the project, and return what it prints."""
        start = "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings'\n"
        start += "import django; django.setup()\n"
        done = subprocess.run(
            [sys.executable, "-c", start + textwrap.dedent(script)],
            cwd=self.directory,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def journal(self, word: str = "done") -> list[int]:
        """Return the numbers of the messages that were begun, or done, in this order."""
        return [int(parts[1]) for parts in self.entries() if parts[0] == word]

    def entries(self) -> list[list[str]]:
        try:
            text = (self.directory / "journal").read_text()
        except FileNotFoundError:
            return []
        return [line.split() for line in text.splitlines()]


def write(directory: Path, layer: dict[str, Any]) -> Project:
    """Write the project into a directory."""
    files = {
        "manage.py": "",
        "mysite/__init__.py": "",
        "mysite/settings.py": SETTINGS,
        "mysite/asgi.py": ASGI,
        "work/__init__.py": "",
        "work/models.py": MODELS,
        "work/consumers.py": CONSUMERS,
    }
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Project(directory, layer)


def on_hub(directory: Path, hub: Hub) -> Project:
    """Write the project, with the layer of a hub that runs."""
    config = {"address": hub.path, "capacity": 10_000, "expiry": 600}
    return write(directory, {"BACKEND": "chansup.layer.LocalChannelLayer", "CONFIG": config})


def on_redis(directory: Path, hosts: list[str]) -> Project:
    """Write the project, with the layer of channels_redis."""
    config = {"hosts": hosts, "capacity": 10_000, "expiry": 600}
    return write(directory, {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": config})
