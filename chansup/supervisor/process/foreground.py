"""How programs that put themselves into the background are told to stay in the foreground."""

import os
import shlex
from collections.abc import Sequence

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


def remedy(argv: Sequence[str]) -> str:
    """Return what to do about the command `argv`, which went into the background."""
    advice = "run it in the foreground"
    words = [word for argument in argv for word in _words(argument)]
    for word in words:
        name = os.path.basename(word)
        # "php-fpm8.2" and "redis-server-7" too
        known = next((one for one in (name, name.rstrip("0123456789.-")) if one in _OPTIONS), None)
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
