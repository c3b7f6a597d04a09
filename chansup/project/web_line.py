"""The Procfile's `web` line: which server it runs, and with which options."""

import re
import shlex

import msgspec

SERVERS = ("uvicorn", "granian", "hypercorn", "daphne", "gunicorn")

_APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.()]*\Z")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_WORKER_CLASSES = {"uvicorn": "uvicorn", "daphne": "daphne"}  # of gunicorn: they name a server

# What chansup does itself, by the words that servers have for it, and where it stands instead.
_OWN = {
    **dict.fromkeys(
        ("bind", "host", "port", "fd", "uds", "unix_socket", "endpoint", "insecure_bind"),
        "[interface] bind",
    ),
    **dict.fromkeys(("workers", "threads", "web_concurrency"), "processes"),
    **dict.fromkeys(("worker_class", "interface", "wsgi_app", "wsgi"), "[app] asgi or wsgi"),
    **dict.fromkeys(("reload", "preload", "preload_app"), "chansup reload"),
    **dict.fromkeys(("app_dir", "chdir", "pythonpath", "working_dir"), "[app] directory"),
    **dict.fromkeys(("env_file", "env"), "[app] env_file and environment"),
    **dict.fromkeys(("pid", "pidfile", "pid_file", "daemon"), "chansup run"),
    **dict.fromkeys(("user", "group", "umask"), "[interface] user, group and umask"),
    **dict.fromkeys(("graceful_timeout", "timeout_graceful_shutdown"), "[rollout] stop_timeout"),
    "timeout": "[interface] liveness_timeout",
    "backlog": "[interface] backlog",
}

# What uvicorn calls that of gunicorn which its worker class hands over to it.
_OF_UVICORN = {
    "max_requests": "limit_max_requests",
    "keep_alive": "timeout_keep_alive",
    "forwarded_allow_ips": "forwarded_allow_ips",
    "log_level": "log_level",
    "keyfile": "ssl_keyfile",
    "certfile": "ssl_certfile",
    "ca_certs": "ssl_ca_certs",
    "ciphers": "ssl_ciphers",
}

_WORDS = {"http"}  # options whose values are words even where they look like numbers

_SHORT = {
    "-b": "[interface] bind",
    "-p": "[interface] bind",
    "-u": "[interface] bind",
    "-w": "processes",
    "-k": "[interface] server",
    "-t": "[interface] liveness_timeout",
}


class WebLine(msgspec.Struct, frozen=True):
    """What such a line says."""

    command: str
    server: str | None = None  # None: a program that chansup has no launcher for
    options: dict[str, str | int | float | bool] = {}  # by the server's own names
    left_out: dict[str, str] = {}  # what was not taken over, and what stands in its place


def read(command: str) -> WebLine:
    """Return what the line says. Options that chansup has keys for are left out, and named so."""
    try:
        words = shlex.split(command)
    except ValueError:
        return WebLine(command)
    left_out: dict[str, str] = {}
    while words and (_ASSIGNMENT.match(words[0]) or words[0] in ("exec", "env")):
        if _ASSIGNMENT.match(words[0]):
            left_out[words[0]] = "[app] environment"
        words = words[1:]
    if words[:2] and words[0].startswith("python") and words[1:2] == ["-m"]:
        words = words[2:]
    server = words[0].rpartition("/")[2] if words else ""
    if server not in SERVERS:
        return WebLine(command)
    return _options(command, server, words[1:], left_out)


def _options(command: str, program: str, words: list[str], left_out: dict[str, str]) -> WebLine:
    """Return what the words after the program say; those in `left_out` stay out."""
    options: dict[str, str | int | float | bool] = {}
    shown_as: dict[str, str] = {}
    server = program
    while words:
        word, words = words[0], words[1:]
        if not word.startswith("-"):
            continue  # the app
        name, equals, value = word.partition("=")
        has_value = bool(equals)
        if not has_value and words and not _is_option(words[0]) and not _APP.match(words[0]):
            value, words, has_value = words[0], words[1:], True
        shown = f"{name} {value}" if has_value else name
        if name in ("-k", "--worker-class"):
            server = next((to for part, to in _WORKER_CLASSES.items() if part in value), server)
        if not name.startswith("--"):
            left_out[shown] = _SHORT.get(name, "")
            continue
        key = name.removeprefix("--").replace("-", "_")
        if key in _OWN:
            left_out[shown] = _OWN[key]
        elif "$" in value:  # of the shell that ran the line
            left_out[shown] = "[interface.options], with ${NAME}"
        else:
            key, is_on = key.removeprefix("no_"), not key.startswith("no_")
            typed = value if key in _WORDS else _typed(value)
            options[key] = typed if has_value else is_on
            shown_as[key] = shown
    if program == "gunicorn" and server != program:
        names = _OF_UVICORN if server == "uvicorn" else {}
        left_out |= {shown_as[key]: "" for key in options if key not in names}
        options = {names[key]: value for key, value in options.items() if key in names}
    return WebLine(command, server, options, left_out)


def _is_option(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?", word)


def _typed(value: str) -> str | int | float | bool:
    if re.fullmatch(r"-?\d+", value):
        return int(value)
    if re.fullmatch(r"-?\d+\.\d+", value):
        return float(value)
    if value in ("true", "false"):
        return value == "true"
    return value
