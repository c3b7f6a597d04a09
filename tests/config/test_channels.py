"""What may stand in tables of channel workers, and what `chansup check` says of their app."""

import os
from pathlib import Path

import pytest

from chansup.check.check import check
from chansup.config import schema, structure
from chansup.config.keys import listed
from chansup.config.load import load

pytestmark = pytest.mark.slow  # the interpreter makes no difference

SITE = '[app]\nasgi = "mysite.asgi:application"\n[interface]\n'
WSGI = '[app]\nwsgi = "mysite.wsgi:application"\n[interface]\n'
X = SITE + "[workers.x]\n"
RABBITMQ = '[channel_layer]\nbackend = "amqp://h"\n'
PUBSUB = '[channel_layer]\nbackend = "redis://h"\noptions = { pubsub = true }\n'


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (X + "only_channels=[]", "workers.x.only_channels", 'at least one glob, as in ["thumb'),
        (X + "exclude_channels=[]", "workers.x.exclude_channels", "at least one glob"),
        (X + "channels=['a*']", "workers.x.channels[0]", "write it in only_channels"),
        (X + "only_channels=['a','b c']", "workers.x.only_channels[1]", "can fit no name"),
        (X + "exclude_channels=['a','a']", "workers.x.exclude_channels[1]", "listed twice"),
        (X + "channels=['a']\nonly_channels=['b']", "workers.x.only_channels", "Keep one of both"),
        (X + "channels=['a']\nexclude_channels=['b']", "workers.x.exclude_channels", "Keep one"),
        (X + "only_channels=['a']\ncommand='x'", "workers.x.only_channels", "beside a command"),
        (X + "only_channels=['a']\nserves=['http']", "workers.x.only_channels", "beside serves"),
        (X + "channels=['a']\nready='notify'", "workers.x.ready", "is for a command"),
        (X + "channels=['a']\nthreads=3", "workers.x.threads", "remove threads"),
        (X + "channels=['a']\nwsgi='a:b'", "workers.x.wsgi", "is for app workers: remove wsgi"),
        (X + "channels=['a']\nconcurrency=0", "workers.x.concurrency", "1 or more"),
        (X + "channels=['a']\nmax_deliveries=0", "workers.x.max_deliveries", "1 or more"),
        (X + "channels=['a']\nmax_deliveries=4", "workers.x.max_deliveries", "redeliver = true"),
        (X + "channels=['a']\ndead_letters='x'", "workers.x.dead_letters", "redeliver = true"),
        (X + "channels=['a']\nredeliver=true\ndead_letters=''", "workers.x.dead_letters", "the path"),
        (X + "channels=['a']\nredeliver=true\ndead_letters='/tmp'", "workers.x.dead_letters",
         "is a directory"),
        (X + "channels=['a']\nredeliver=true\ndead_letters='.'", "workers.x.dead_letters",
         "is a directory"),
        (X + "channels=['a']\nredeliver=true\ndead_letters='no/such/x'", "workers.x.dead_letters",
         "no/such\" does not exist: create it"),
        (X + "channels=['a']\nredeliver=true\ndead_letters='/dev/null/x'", "workers.x.dead_letters",
         "is not a directory"),
        (X + "channels=['a']\nredeliver=true\ndead_letters='~/x'", "workers.x.dead_letters", "HOME"),
        (X + "channels=['a']\nasgi='a'", "workers.x.asgi", "expected the module"),
        (X + "command='x'\nlayer='a'", "workers.x.layer", 'add channels = ["thumbnails"], or rem'),
        (X + "serves=['http']\nlayer='a'", "workers.x.layer", "is for channel workers: remove"),
        (X + "command='x'\nconcurrency=2", "workers.x.concurrency", "app workers and channel work"),
        ("[workers.x]\nchannels=['a']", "workers.x", "needs the ASGI app that has the consumers"),
        (WSGI + "[workers.x]\nchannels=['a']", "workers.x", "and app.wsgi is one of WSGI"),
        (X + "channels=['a']\nredeliver=true\n[channel_layer]\nbackend='redis://h'",
         "workers.x.redeliver", "needs chansup's own channel layer"),
        (X + "channels=['a']\n" + RABBITMQ, "workers.x", "no channels by name"),
        (X + "channels=['a']\n" + PUBSUB, "workers.x", "with pubsub each message goes to all"),
    ],
)  # fmt: skip
def test_rule(problems, text, key, words):
    (problem,) = problems(text)
    assert problem.key == key
    assert words in problem.message


@pytest.mark.parametrize(
    "text",
    [
        X + 'channels = ["a", "b.c-d_e"]\nconcurrency = 10\nprocesses = "per-core"',
        X + 'only_channels = ["a*", "[ab]?"]\nexclude_channels = ["*.slow"]\non_reload = "restart"',
        X
        + 'exclude_channels = ["a"]\nredeliver = true\nmax_deliveries = 1\ndead_letters = "/tmp/y"',
        X + 'exclude_channels = ["a"]\nredeliver = true\ndead_letters = "/dev/null"',
        WSGI + '[workers.x]\nchannels = ["a"]\nasgi = "mysite.asgi:application"',
        '[workers.x]\nchannels = ["a"]\nasgi = "mysite.asgi:application"',
        X + 'channels = ["a"]\nlayer = "jobs"\n' + RABBITMQ,
        X + 'channels = ["a"]\n[channel_layer]\nbackend = "redis://h"',
    ],
)
def test_what_is_right(config, text):
    assert config(text).warnings == []


def test_every_key_of_channel_workers_needs_channels(problems):
    of_others = {"command", "ready", "on_reload", "serves", *structure.fields(schema.Pool)}
    keys = ("max_deliveries", "dead_letters", "layer", "redeliver", "concurrency", "python", "asgi")
    assert not of_others & set(keys)
    values = {"redeliver": "true", "python": "'/bin/sh'", "asgi": "'a:b'", "dead_letters": "'x'"}
    lines = "".join(f"{key} = {values.get(key, 1)}\n" for key in keys if key != "layer")
    found = problems(f"[workers.x]\ncommand = 'x'\nlayer = 'x'\n{lines}")
    assert {problem.key for problem in found} == {f"workers.x.{key}" for key in keys}


# What `chansup check` asks the app

CONFIG = '[app]\nasgi = "site_app:application"\n[admin]\nbind = ""\n'
APP = """\
from django.conf import settings

settings.configure(CHANNEL_LAYERS={layers})
from channels.middleware import BaseMiddleware
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter


async def consumer(scope, receive, send): ...


application = {application}
"""
ROUTER = 'ChannelNameRouter({"thumbnails": consumer, "mail": consumer})'
OWN = '{"default": {"BACKEND": "chansup.layer.ChannelLayer"}}'
IN_MEMORY = '{"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}'
REDIS = '{"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}'


def checked(directory: Path, keys: str, application: str, layers: str = OWN) -> list:
    (directory / "site_app.py").write_text(APP.format(application=application, layers=layers))
    path = directory / "chansup.toml"
    path.write_text(f"{CONFIG}[workers.x]\n{keys}\n")
    return check(path, {"PATH": os.environ["PATH"]}).problems


def wrapped(router: str) -> str:
    return f'ProtocolTypeRouter({{"channel": BaseMiddleware(BaseMiddleware({router}))}})'


@pytest.mark.parametrize(
    ("keys", "application", "key", "words"),
    [
        ('channels = ["mail", "thumbnial"]', wrapped(ROUTER), "channels",
         'has no "thumbnial": did you mean "thumbnails"?'),
        ('channels = ["resize"]', ROUTER, "channels", 'it has "mail" and "thumbnails"'),
        ('only_channels = ["*", "x*"]', wrapped(ROUTER), "only_channels", '"x*" fits no channel'),
        ('exclude_channels = ["x"]', wrapped(ROUTER), "exclude_channels", '"x" fits no channel'),
        ('exclude_channels = ["*"]', wrapped(ROUTER), "exclude_channels", "leave no channel"),
        ('only_channels = ["m*"]', "consumer", "only_channels", "and the app has none"),
        ('channels = ["mail"]', 'ProtocolTypeRouter({"http": consumer})', "channels",
         'has no "channel": add "channel": ChannelNameRouter({"mail": '),
        ('channels = ["mail"]\nlayer = "jobs"', ROUTER, "layer", 'has no "jobs", it has "default"'),
    ],
)  # fmt: skip
def test_what_the_app_does_not_have(tmp_path, keys, application, key, words):
    (problem,) = checked(tmp_path, keys, application)
    assert problem.key == f"workers.x.{key}"
    assert problem.line is not None
    assert words in problem.message


@pytest.mark.parametrize(
    ("layers", "keys", "words"),
    [
        ("{}", "", 'set CHANNEL_LAYERS = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}'),
        (IN_MEMORY, "", "no message reaches a worker"),
        (REDIS, "redeliver = true", "redeliver needs chansup's own channel layer"),
    ],
)
def test_layers_that_cannot_do_it(tmp_path, layers, keys, words):
    (problem,) = checked(tmp_path, f'channels = ["mail"]\n{keys}', ROUTER, layers)
    assert problem.key == "workers.x.layer"
    assert words in problem.message


@pytest.mark.parametrize(
    ("keys", "application"),
    [
        ('channels = ["mail"]\nredeliver = true', wrapped(ROUTER)),
        ('channels = ["what.ever"]', "consumer"),
        ('channels = ["what.ever"]', 'ProtocolTypeRouter({"channel": consumer})'),
        ('only_channels = ["*a*"]\nexclude_channels = ["mail"]', wrapped(ROUTER)),
    ],
)
def test_what_the_app_has(tmp_path, keys, application):
    assert checked(tmp_path, keys, application) == []


def test_an_app_without_django(tmp_path):
    (tmp_path / "site_app.py").write_text("async def application(scope, receive, send): ...")
    path = tmp_path / "chansup.toml"
    path.write_text(f'{CONFIG}[workers.x]\nchannels = ["a"]\n')
    assert check(path, {"PATH": os.environ["PATH"]}).problems == []
    path.write_text(f'{CONFIG}[workers.x]\nchannels = ["a"]\nlayer = "jobs"\n')
    (problem,) = check(path, {"PATH": os.environ["PATH"]}).problems
    assert "has no Django settings: remove it" in problem.message


def test_pools_with_the_same_app_are_asked_together(tmp_path):
    (tmp_path / "site_app.py").write_text(
        "open('imports', 'a').write('x')\n" + APP.format(application=ROUTER, layers=OWN)
    )
    path = tmp_path / "chansup.toml"
    tables = "".join(f'[workers.{one}]\nchannels = ["no.{one}"]\n' for one in "abc")
    path.write_text(CONFIG + tables)
    found = check(path, {"PATH": os.environ["PATH"]}).problems
    assert [problem.key for problem in found] == [f"workers.{one}.channels" for one in "abc"]
    assert (tmp_path / "imports").read_text() == "x"


@pytest.mark.parametrize(
    ("tables", "idle"),
    [
        ("", ["thumbnails", "mail"]),
        ('[workers.x]\nchannels = ["mail"]', ["thumbnails"]),
        ('[workers.x]\nexclude_channels = ["mail"]', ["mail"]),
        ('[workers.x]\nonly_channels = ["*"]', []),
        ('[workers.x]\nchannels = ["mail"]\n[workers.y]\nchannels = ["thumbnails"]', []),
        ('[workers.x]\ncommand = "env manage.py runworker mail thumbnails"', []),
        ('[programs.x]\ncommand = ["sh", "-c", "env manage.py runworker $ALL"]', []),
    ],
)
def test_channels_that_nobody_consumes(tmp_path, tables, idle):
    (tmp_path / "site_app.py").write_text(APP.format(application=wrapped(ROUTER), layers=OWN))
    path = tmp_path / "chansup.toml"
    path.write_text(f'{CONFIG}[interface]\nbind = "127.0.0.1:0"\n{tables}\n')
    report = check(path, {"PATH": os.environ["PATH"]})
    assert report.problems == []
    warned = [
        one
        for one in report.warnings
        if "takes messages" in one.message or "take messages" in one.message
    ]
    assert bool(idle) == bool(warned)
    if idle:
        (warning,) = warned
        assert (warning.key, warning.line) == ("app.asgi", 2)
        assert f"routes {listed(idle, 'and')} to consumers, and no workers" in warning.message


def test_channels_that_another_machine_may_consume(tmp_path):
    (tmp_path / "site_app.py").write_text(APP.format(application=ROUTER, layers=OWN))
    path = tmp_path / "chansup.toml"
    path.write_text(
        f'{CONFIG}[interface]\nbind = "127.0.0.1:0"\n[channel_layer]\nbackend = "redis://h"\n'
    )
    report = check(path, {"PATH": os.environ["PATH"]})
    assert report.warnings == []
    assert any('routes "thumbnails" and "mail" to consumers' in note for note in report.notes)


@pytest.mark.parametrize("table", ["workers", "programs"])
def test_runworker_is_told_what_replaces_it(tmp_path, table):
    path = tmp_path / "chansup.toml"
    path.write_text(f'{SITE}[{table}.x]\ncommand = "python manage.py runworker a --layer b c"\n')
    (warning,) = load(path, {}).warnings
    assert warning.key == f"{table}.x.command"
    assert '[workers.x] with channels = ["a", "c"] and layer = "b" replaces it' in warning.message
    path.write_text(f'{SITE}[{table}.x]\ncommand = "python runworker.py a"\n')
    assert load(path, {}).warnings == []
