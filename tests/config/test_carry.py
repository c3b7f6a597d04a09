"""Which WebSockets of direct mode are to outlive their process, by the config."""

import pytest

from chansup.check.check import check
from chansup.config import carry
from chansup.config.schema import App, Config, Interface, Route, Workers
from chansup.protocol.roster import Route as Told

pytestmark = pytest.mark.slow  # the interpreter makes no difference

SITE = '[app]\nasgi = "mysite.asgi:application"\n[interface]\n'
RELAY = '[workers.web]\nserves = ["http", "websocket"]\n'
ASGI = App(asgi="a:b")
MOVES = Interface(handover="transparent")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(app=ASGI, interface=MOVES), ""),
        (Config(app=ASGI, interface=Interface(options={"ssl_certfile": ""})), ""),
        (Config(app=ASGI), "no interface"),
        (Config(interface=Interface(command="x")), "a program of your own"),
        (Config(app=App(wsgi="a:b"), interface=MOVES), "WSGI"),
        (Config(app=ASGI, interface=Interface(server="granian")), "granian"),
        (Config(app=ASGI, interface=Interface(server="daphne")), "daphne"),
        (Config(app=ASGI, interface=Interface(options={"ssl_certfile": "x"})), "TLS"),
        (
            Config(app=ASGI, interface=MOVES, workers={"web": Workers(serves=["http"])}),
            "the relay",
        ),
    ],
)
def test_what_keeps_websockets_from_moving(config, words):
    assert words in carry.obstacle(config)
    assert bool(carry.obstacle(config)) is bool(words)


def test_it_is_on_where_it_is_wanted_and_can_be():
    assert carry.is_on(Config(app=ASGI, interface=MOVES))
    assert not carry.is_on(Config(app=ASGI, interface=Interface(handover="close")))
    assert not carry.is_on(Config(app=ASGI, interface=Interface(server="granian")))
    only_one = Route(route="websocket:/chat", handover="transparent")
    some = Interface(handover="close", websockets=[only_one])
    assert carry.is_on(Config(app=ASGI, interface=some))


def test_an_entry_says_what_differs_from_the_table():
    interface = Interface(
        handover="transparent",
        redeliver=True,
        websockets=[
            Route(route="websocket:/game/*", handover="close"),
            Route(route="websocket:/feed", redeliver=False),
        ],
    )
    assert carry.routes(interface) == [
        Told("websocket:/game/*", "close", True),
        Told("websocket:/feed", "transparent", False),
    ]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (SITE + 'websockets = [{ route = "http:/x" }]', "interface.websockets[0].route",
         'write "websocket:/x"'),
        (SITE + 'websockets = [{ route = "/x" }]', "interface.websockets[0].route", "has no type"),
        (SITE + 'websockets = [{ route = "websocket:/x" }, { route = "ws:/x" }]',
         "interface.websockets[1].route", "did you mean"),
        (SITE + 'websockets = [{ route = "websocket" }, { route = "websocket" }]',
         "interface.websockets[1].route", "fits the same"),
        ('[interface]\ncommand = "x {fd}"\nhandover = "close"', "interface.handover",
         "no effect beside a command"),
        (SITE + "handover_rate = 0", "interface.handover_rate", "above 0"),
    ],
)  # fmt: skip
def test_rule(problems, text, key, words):
    (problem,) = problems(text)
    assert problem.key == key
    assert words in problem.message


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (SITE + 'server = "granian"\nhandover = "transparent"', "interface.handover", "granian"),
        (SITE + 'options = { ssl_certfile = "/etc/hostname" }\n'
         'websockets = [{ route = "websocket:/x", handover = "transparent" }]',
         "interface.websockets", "TLS"),
        (SITE + 'handover = "close"\n' + RELAY, "interface.handover",
         "write handover in [workers.web]"),
        (SITE + "websockets = []\n" + RELAY, "interface.websockets", "an entry of serves"),
        (SITE + 'handover = "close"\n[handover]\nclose = ["x"]', "handover", "has no effect"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(config, text, key, words):
    (warning,) = config(text).warnings
    assert warning.key == key
    assert words in warning.message


@pytest.mark.parametrize(
    "text",
    [
        SITE + 'handover = "transparent"\n[handover]\nclose = ["x"]',
        SITE + 'server = "granian"\nhandover = "close"',
        SITE + 'websockets = [{ route = "websocket:/game/*", handover = "close" }]',
    ],
)
def test_what_is_right(config, text):
    assert config(text).warnings == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('server = "granian"', "granian keeps"),
        ('bind = "unix:web.sock"', "end at a crash"),
        ('handover = "close"', None),
        ("", None),
    ],
)
def test_the_check_says_what_does_not_outlive_its_process(tmp_path, keys, words):
    (tmp_path / "app.py").write_text("async def app(scope, receive, send): ...\n")
    (tmp_path / "chansup.toml").write_text(f'[app]\nasgi = "app:app"\n[interface]\n{keys}\n')
    notes = check(tmp_path / "chansup.toml", {}).notes
    said = [note for note in notes if "WebSockets" in note]
    assert len(said) == (words is not None)
    assert words is None or words in said[0]
