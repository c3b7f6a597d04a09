"""Programs that put themselves into the background, and how they are told not to."""

import os
import re
import shlex
from collections.abc import Collection, Sequence

_OPTIONS = {
    "apache2": "-DFOREGROUND",
    "apache2ctl": "-DFOREGROUND",
    "apachectl": "-DFOREGROUND",
    "beanstalkd": "without -d",
    "celery": "celery worker instead of celery multi, without --detach",
    "cron": "-f",
    "crond": "-n, or -f",
    "dnsmasq": "--keep-in-foreground",
    "gunicorn": "without --daemon",
    "haproxy": "-db",
    "httpd": "-DFOREGROUND",
    "lighttpd": "-D",
    "memcached": "without -d",
    "mongod": "without --fork",
    "mosquitto": "without -d",
    "named": "-f",
    "nginx": "-g 'daemon off;'",
    "pgbouncer": "without -d",
    "pg_ctl": "postgres -D DIRECTORY instead",
    "php-fpm": "--nodaemonize",
    "postfix": "start-fg",
    "rabbitmq-server": "without -detached",
    "redis-sentinel": "--daemonize no",
    "redis-server": "--daemonize no",
    "rsyslogd": "-n",
    "squid": "-N",
    "sshd": "-D",
    "supervisord": "--nodaemon",
    "syslog-ng": "-F",
    "twistd": "--nodaemon",
    "unbound": "-d",
    "uwsgi": "without --daemonize",
    "valkey-server": "--daemonize no",
    "varnishd": "-F",
    "vsftpd": "-obackground=NO",
}

# What has to stand in the command of a program that would go into the background by itself
_FOREGROUND = {
    **dict.fromkeys(
        ("apache2", "apache2ctl", "apachectl", "httpd"), ("-DFOREGROUND", "FOREGROUND", "-X")
    ),
    "cron": ("-f",),
    "crond": ("-n", "-f", "-d"),
    "dnsmasq": ("--keep-in-foreground", "-k", "--no-daemon", "-d"),
    "lighttpd": ("-D",),
    "named": ("-f", "-g"),
    "nginx": ("daemon off",),
    "php-fpm": ("--nodaemonize", "-F"),
    "postfix": ("start-fg",),
    "rsyslogd": ("-n",),
    "squid": ("-N", "--foreground"),
    "sshd": ("-D", "-d"),
    "supervisord": ("--nodaemon", "-n"),
    "syslog-ng": ("-F", "--foreground"),
    "twistd": ("--nodaemon", "-n", "-no", "-noy"),
    "unbound": ("-d", "-dd"),
    "varnishd": ("-F", "-d"),
}
# And in that of one that does so only if it is told to
_BACKGROUND = {
    "celery": ("multi", "--detach", "-D"),
    "gunicorn": ("--daemon", "-D"),
    "haproxy": ("-D",),
    "memcached": ("-d", "--daemon"),
    "mongod": ("--fork",),
    "mosquitto": ("-d", "--daemon"),
    "pg_ctl": ("start", "restart"),
    "pgbouncer": ("-d", "--daemon"),
    "rabbitmq-server": ("-detached",),
    **dict.fromkeys(("redis-sentinel", "redis-server", "valkey-server"), ("--daemonize yes",)),
    "uwsgi": ("--daemonize", "-d"),
}
_SHELLS = ("sh", "bash", "dash", "ash", "ksh", "zsh")
_WRAPPERS = ("env", "exec", "nice", "sudo", "nohup")
_ENDS_IN_BACKGROUND = re.compile(r"&\s*\Z")


def daemon(argv: Sequence[str]) -> str | None:
    """Return that the command `argv` will go into the background, and what to do; or None."""
    words = list(argv)
    while words and (os.path.basename(words[0]) in _WRAPPERS or "=" in words[0]):
        words = words[1:]
    if not words:
        return None
    name = os.path.basename(words[0])
    if name in _SHELLS:
        return _daemon_of_shell(words)
    known = _known(name, (*_FOREGROUND, *_BACKGROUND))
    if known is None:
        return None
    rest = " ".join(words[1:])
    if known in _BACKGROUND:
        told = any(_stands_in(one, rest) for one in _BACKGROUND[known])
        return f"{known} goes into the background: {remedy(argv)}" if told else None
    if any(_stands_in(one, rest) for one in _FOREGROUND[known]):
        return None
    return (
        f"{known} goes into the background, if its own settings do not say otherwise: "
        f"{remedy(argv)}"
    )


def _daemon_of_shell(words: Sequence[str]) -> str | None:
    """Look at `sh -c LINE`; a script is not read."""
    if len(words) < 3 or words[1] != "-c":
        return None
    line = words[2]
    if _ENDS_IN_BACKGROUND.search(line) and not line.rstrip().endswith("&&"):
        return f"its last program goes into the background: {remedy(words)}"
    if any(mark in line for mark in ";&|\n"):
        return None
    return daemon(_words(line))


def _stands_in(option: str, rest: str) -> bool:
    return re.search(rf"(?:^|[\s'\"]){re.escape(option)}(?:$|[\s;='\"])", rest) is not None


def _known(name: str, names: Collection[str]) -> str | None:
    """Return which of `names` a program has: "php-fpm8.2" and "redis-server-7" too."""
    return next((one for one in (name, name.rstrip("0123456789.-")) if one in names), None)


def remedy(argv: Sequence[str]) -> str:
    """Return what to do about the command `argv`, which went into the background."""
    advice = "run it in the foreground"
    words = [word for argument in argv for word in _words(argument)]
    for word in words:
        known = _known(os.path.basename(word), _OPTIONS)
        if known is not None:
            return f"{advice} ({known}: {_OPTIONS[known]})"
    if any(word == "&" or word.endswith("&") for word in words):
        return f"{advice} (without &, or end the line with `wait`)"
    return f"{advice} (the option is often called --foreground, --nodaemon or -F)"


def _words(argument: str) -> list[str]:
    try:
        return shlex.split(argument)
    except ValueError:
        return argument.split()
