"""From a project to the text of its chansup.toml."""

import json
import re
import textwrap

from chansup.config.pools import RESERVED
from chansup.project.project import Consumer, Program, Project

_NAME_CHARACTERS = re.compile(r"[^a-z0-9_-]+")
_CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,99}\Z")
_HEAD = """\
# How chansup runs this project. Try it: chansup check, then chansup run.
# Every key is explained in chansup's documentation, on the page "Configuration"."""
_MIGRATE = """\
# Migrate before new code starts, on each start and each reload:
# [tasks.migrate]
# command = "python manage.py migrate --noinput"
# before = ["interface", "workers"]"""
_REDIS = """\
# The settings' channel layer is Redis. chansup can run that as well:
# [programs.redis]
# command = ["redis-server", "--port", "6379", "--save", ""]
# ready = "tcp:6379"
# One machine needs no Redis: chansup has a channel layer of its own."""
_CHANNEL_LAYER = """\
# Groups and channels between these processes: chansup's own, a single machine needs nothing else.
# For many machines: backend = "redis://HOST:6379/0"
[channel_layer]
backend = "local\""""
_OTHER_LAYERS = ("redis", "other")  # that still work as they are, without that table
_READY = '# ready = "http:/"  # a page that a new process must answer before it takes connections'
_ONE_PROCESS = [
    "# Groups of an in-memory channel layer end at the process, so there is one.",
    "processes = 1",
]
_KEPT = {
    "connections": "A message reaches the clients of one process, so there is one.",
    "socketio": "Clients of other processes would not be reached, so there is one.",
    "memory": "It ends at the process, so there is one.",
}
_MORE = 'For more: documentation, "More than one process".'
_STICKY = [
    "# Socket.IO's long polling: all requests of a client go to the process that knows it.",
    'sticky = "sid"',
]
_RELAY = """\
# Relay mode: the processes of [interface] only hold the connections, and these run the project.
# `chansup reload` replaces these, and open WebSockets move to the new ones; after a crash likewise.
# The connection stays; what a consumer keeps in its attributes starts empty: documentation,
# "Relay mode", "Checkpoints". Without this table, [interface] runs the project itself."""
_SESSIONS = (
    "their sessions live in one process, so chansup closes these WebSockets with 1012 instead of "
    "moving them, and clients connect again. Documentation: which apps survive a handover."
)
_MOST_POOLS = 4  # of channels; more share one


def render(project: Project) -> str:
    """Return a chansup.toml for the project: short, valid, and with the next steps as comments."""
    names = _Names()
    sections = [
        _HEAD,
        _app(project),
        _interface(project),
        *_app_workers(project, names),
        *_tasks(project, names),
        *_workers(project, names),
        *_channel_layer(project),
        *_programs(project, names),
    ]
    return "\n\n".join(sections) + "\n"


class _Names:
    """Gives out names of pools: valid, and each once."""

    def __init__(self) -> None:
        self._taken = set(RESERVED)

    def take(self, wanted: str) -> str:
        name = _NAME_CHARACTERS.sub("-", wanted.lower()).strip("-_")[:50]
        if not name[:1].isalpha():
            name = f"pool-{name}".strip("-")
        free, number = name, 2
        while free in self._taken:
            free, number = f"{name}-{number}", number + 1
        self._taken.add(free)
        return free


def _app(project: Project) -> str:
    lines = ["[app]"]
    if project.asgi is not None:
        lines.append(f"asgi = {_string(project.asgi)}")
    elif project.wsgi is not None:
        lines.append(f"wsgi = {_string(project.wsgi)}")
    if project.app_directory != ".":
        lines.append(f"directory = {_string(project.app_directory)}")
    if project.python is not None and project.python_has_chansup:
        lines.append(f"python = {_string(project.python)}")
    elif project.python is not None:
        lines.append("# To run the app in its own environment, install chansup there too:")
        lines.append(f"# python = {_string(project.python)}")
    if project.has_env_file:
        lines.append('env_file = "-.env"  # "-": it may be missing')
    if project.settings is not None:
        settings = _string(project.settings)
        lines.append(f"environment = {{ DJANGO_SETTINGS_MODULE = {settings} }}")
    return "\n".join(lines)


def _interface(project: Project) -> str:
    lines = [
        "[interface]",
        "# Behind a proxy on this machine: 127.0.0.1:8000, or unix:run/web.sock",
        'bind = ["0.0.0.0:${PORT:-8000}"]',
    ]
    one_process = _one_process(project) if not project.has_websockets else []
    lines += one_process or ['processes = 2  # or "per-core"']
    if not project.has_websockets:
        lines.append(_ready(project))
    lines += _server(project)
    if project.is_django and not project.serves_static:
        lines += [
            "# Django serves no static files in production. Add WhiteNoise to the middleware, let",
            '# nginx serve them, or let granian do it (documentation, "Servers", "Static files").',
        ]
    return "\n".join(lines)


def _server(project: Project) -> list[str]:
    """Return the server of the Procfile's web line, with its options under their own names."""
    web = project.web
    if web is None or web.server is None or (web.server == "uvicorn" and not web.options):
        return []
    lines = [f"server = {_string(web.server)}  # as the Procfile's web line has it"]
    if web.options:
        options = ", ".join(f"{name} = {_value(value)}" for name, value in web.options.items())
        lines.append(f"options = {{ {options} }}")
    return lines


def _value(value: str | int | float | bool) -> str:
    return _string(value) if isinstance(value, str) else json.dumps(value)


def _app_workers(project: Project, names: _Names) -> list[str]:
    if not project.has_websockets:
        return []
    lines = [_RELAY, f"[workers.{names.take('web')}]", 'serves = ["http", "websocket"]']
    one_process = _one_process(project)
    lines += one_process or ['processes = "per-core"']
    if project.in_process.polls and not one_process:
        lines += _STICKY
    lines += _handover(project)
    lines.append(_ready(project))
    return ["\n".join(lines)]


def _one_process(project: Project) -> list[str]:
    """Return the lines that keep the app in one process, if it has to be."""
    if project.channel_layer == "memory":
        return _ONE_PROCESS
    kept = project.in_process.kept
    if not kept:
        return []
    text = f"{kept[0].place}: {kept[0].what}. {_KEPT[kept[0].kind]} {_MORE}"
    return [*(f"# {line}" for line in textwrap.wrap(text, 96)), "processes = 1"]


def _handover(project: Project) -> list[str]:
    if not project.session_packages:
        return []
    names = ", ".join(package.name for package in project.session_packages)
    lines = [f"# {line}" for line in textwrap.wrap(f"{names}: {_SESSIONS}", 96)]
    if project.handover == "close":
        lines.append('handover = "close"')
    return lines


def _ready(project: Project) -> str:
    if project.health is None:
        return _READY
    return f"ready = {_string('http:' + project.health)}  # a page that must answer first"


def _tasks(project: Project, names: _Names) -> list[str]:
    if project.release is not None:
        header = f"[tasks.{names.take('release')}]"
        command = f"command = {_command(project.release)}"
        return [f'{header}\n{command}\nbefore = ["interface", "workers", "programs"]']
    return [_MIGRATE] if project.is_django else []


def _workers(project: Project, names: _Names) -> list[str]:
    sections = [_consumer(consumer, names) for consumer in project.consumers]
    channels = [one for one in dict.fromkeys(project.channels) if _CHANNEL.match(one)]
    if not channels or not project.is_django:
        return sections
    if len(channels) > _MOST_POOLS:
        background = f"[workers.{names.take('background')}]\nchannels = {json.dumps(channels)}"
        return [*sections, background]
    return sections + [
        f"[workers.{names.take(channel)}]\nchannels = {json.dumps([channel])}"
        for channel in channels
    ]


def _consumer(consumer: Consumer, names: _Names) -> str:
    lines = [
        f"# In place of runworker, which the Procfile has as {_string(consumer.name)}.",
        f"[workers.{names.take(consumer.name)}]",
        f"channels = {json.dumps(consumer.channels)}",
    ]
    if consumer.layer != "default":
        lines.append(f"layer = {_string(consumer.layer)}")
    return "\n".join(lines)


def _channel_layer(project: Project) -> list[str]:
    if not project.has_channels or project.channel_layer in _OTHER_LAYERS:
        return []
    return [_CHANNEL_LAYER]


def _programs(project: Project, names: _Names) -> list[str]:
    sections = [_program(program, names) for program in project.programs]
    if project.channel_layer == "redis":
        sections.append(_REDIS)
    return sections


def _program(program: Program, names: _Names) -> str:
    return f"[programs.{names.take(program.name)}]\ncommand = {_command(program.command)}"


def _command(command: str | list[str]) -> str:
    if isinstance(command, str):
        return _string(command)
    return f"[{', '.join(_string(word) for word in command)}]"


def _string(text: str) -> str:
    """Return a TOML string that means `text` after chansup filled in its variables."""
    return json.dumps(text.replace("${", "$${"), ensure_ascii=False).replace("\x7f", "\\u007f")
