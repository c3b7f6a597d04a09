"""What may stand in tables of app workers, and around them."""

import pytest

from chansup.config import channels, schema, structure

pytestmark = pytest.mark.slow  # the interpreter makes no difference

APP = '[app]\nasgi = "mysite.asgi:application"\n'
WSGI = '[app]\nwsgi = "mysite.wsgi:application"\n'
SITE = APP + "[interface]\n"
WEB = '[workers.web]\nserves = ["http", "websocket"]\n'
OLD = '[workers.old]\nserves = ["http:/old/*"]\nwsgi = "old.wsgi:application"\n'


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        # Routes
        (SITE + '[workers.web]\nserves=["http","ws"]', "workers.web.serves[1]", '"websocket"?'),
        (SITE + '[workers.web]\nserves=[{route="/a"}]', "workers.web.serves[0].route", '"http:/a"'),
        (SITE + "[workers.web]\nserves=[]", "workers.web.serves", "at least one route"),
        (SITE + '[workers.web]\nserves="http"', "workers.web.serves", 'write ["http"]'),
        (SITE + "[workers.web]\nserves=[3]", "workers.web.serves[0]", "a string or a table"),
        (SITE + "[workers.web]\nserves=[{}]", "workers.web.serves[0].route", "is missing"),
        (SITE + '[workers.web]\nserves=[{route="http",redelivr=true}]',
         "workers.web.serves[0].redelivr", 'did you mean "redeliver"?'),
        (SITE + '[workers.web]\nserves=["http","http:/*"]', "workers.web.serves[1]",
         '"http:/*" fits the same as "http" in workers.web.serves[0] already: remove one'),
        (SITE + WEB + '[workers.api]\nserves=["http:/a", "http"]', "workers.api.serves[1]",
         '"http" stands in workers.web.serves[0] already: remove one'),
        (SITE + WEB + '[workers.api]\nserves=[{route="websocket"}]', "workers.api.serves[0].route",
         "stands in workers.web.serves[1] already"),
        (SITE + WEB + '[workers.api]\nserves=["http:A.org/*", {route="http:a.org./*"}]',
         "workers.api.serves[1].route", "in workers.api.serves[0] already"),
        (SITE + '[workers.web]\nserves=[{route="http",handover="close"}]',
         "workers.web.serves[0].handover", "remove it from an http route"),
        (SITE + '[workers.web]\nserves=[{route="websocket",handover="closed"}]',
         "workers.web.serves[0].handover", 'did you mean "close"?'),
        # Sticky dispatch
        (SITE + WEB + 'sticky = "sid=1"', "workers.web.sticky", 'invalid name "sid=1"'),
        (SITE + WEB + 'sticky = "?sid="', "workers.web.sticky", 'as in "sid"'),
        (SITE + WEB + 'sticky = ""', "workers.web.sticky", "one query parameter"),
        (SITE + WEB + "sticky = true", "workers.web.sticky", "string"),
        (SITE + WEB + 'stiky = "sid"', "workers.web.stiky", 'did you mean "sticky"?'),
        (APP + '[interface]\n[workers.x]\nchannels=["x"]\nsticky="sid"', "workers.x.sticky",
         "is for app workers"),
        # One kind of worker
        (SITE + "[workers.x]\nprocesses=2", "workers.x", "found none of them"),
        (SITE + WEB + "command='x'", "workers.web.serves", "beside a command"),
        (SITE + WEB + "channels=['x']", "workers.web.channels", "beside serves"),
        (SITE + WEB + "ready='notify'", "workers.web.ready", '"notify" cannot be asked'),
        (SITE + "ready='http:/x'\n" + WEB, "interface.ready", "write it in [workers.web]"),
        (SITE + WEB + 'on_reload="restart"', "workers.web.on_reload", 'write "overlap"'),
        (SITE + WEB + 'on_reload="keep"', "workers.web.on_reload", 'write "overlap"'),
        (SITE + "[workers.x]\ncommand='x'\nthreads=2", "workers.x.threads", "add serves"),
        (SITE + "[workers.x]\ncommand='x'\npython='/bin/sh'", "workers.x.python", "in the command"),
        (SITE + "[workers.x]\ncommand='x'\nhandover='close'", "workers.x.handover", "add serves"),
        (SITE + "[workers.x]\ncommand='x'\nqueue_limit=1000", "workers.x.queue_limit", "add serves"),
        (SITE + WEB + 'after=["interface"]', "workers.web.after", 'waits for "interface", and'),
        (SITE + WEB + 'after=["a"]\n[programs.a]\ncommand="x"\n[tasks.t]\ncommand="x"\n'
         'before=["a"]\nafter=["interface"]', "workers.web", '(through "a" and "t")'),
        # Their app
        ("[interface]\n" + WEB, "workers.web", "has no app to run"),
        ('[interface]\nmode="relay"\n' + OLD + WEB, "workers.web", "has no app to run"),
        (SITE + WEB + 'asgi="a:b"\nwsgi="c:d"', "workers.web.wsgi", "keep one"),
        (SITE + WEB + 'asgi="shop/asgi.py"', "workers.web.asgi", '"shop.asgi:application"'),
        (SITE + WEB + "threads=2", "workers.web.threads", "app.asgi is none"),
        (SITE + WEB + 'asgi="a:b"\nthreads=2', "workers.web.threads", "workers.web.asgi is none"),
        (WSGI + "[interface]\n" + WEB, "workers.web.serves[1]", "app.wsgi is a WSGI app"),
        (SITE + '[workers.web]\nserves=[{route="websocket"}]\nwsgi="a:b"',
         "workers.web.serves[0].route", "workers.web.wsgi is a WSGI app"),
        (SITE + OLD + "threads=4\nconcurrency=3", "workers.old.concurrency", "below threads (4)"),
        (SITE + OLD + "concurrency=0", "workers.old.concurrency", "1 or more"),
        (SITE + WEB + 'python="no-such"', "workers.web.python", "is not on PATH"),
        (SITE + WEB + 'python="venv/bin/python"', "workers.web.python", "does not exist"),
        # The interface before them
        (APP + WEB, "workers.web.serves", "add that table"),
        (APP + '[interface]\ncommand="x"\n' + WEB, "interface.command", "remove one of both"),
        (SITE + 'mode="direct"\n' + WEB, "interface.mode", 'beside serves in [workers.web]: write'),
        (SITE + 'mode="relay"', "interface.mode", 'add [workers.web] with serves'),
        ('[interface]\nmode="relay"', "interface.mode", 'or write "direct"'),
        (SITE + 'server="gunicorn"\n' + WEB, "interface.server", 'write "uvicorn", "granian",'),
        (SITE + 'server="hypercorn"\noptions={worker_class="trio"}\n' + WEB,
         "interface.options.worker_class", 'write "asyncio" or "uvloop"'),
    ],
)  # fmt: skip
def test_rule(problems, text, key, words):
    (problem,) = problems(text)
    assert problem.key == key
    assert words in problem.message


@pytest.mark.parametrize(
    "text",
    [
        SITE + WEB,
        SITE + 'mode = "relay"\nhealth_path = "/-/health"\n' + WEB,
        SITE + 'server = "hypercorn"\noptions = { worker_class = "uvloop" }\n' + WEB,
        SITE + 'server = "gunicorn"\nmode = "direct"',
        SITE + WEB + 'on_reload = "auto"\nprocesses = "per-core"\nconcurrency = 1',
        SITE + WEB + OLD + "threads = 8\nconcurrency = 8",
        SITE + 'after = ["workers"]\n' + WEB + '[programs.x]\ncommand = "x"\nafter = ["interface"]',
        WSGI + "[interface]\n[workers.web]\nserves = ['http']\nthreads = 2",
        "[interface]\n" + WEB + 'asgi = "a:b"\n' + OLD,
        SITE + '[workers.web]\nserves = ["http", { route = "websocket", handover = "close" }]',
        SITE + '[workers.web]\n[[workers.web.serves]]\nroute = "http"\nredeliver = true',
        SITE + '[workers.web]\nserves = ["http:localhost/*", "http:[::1]/*", "http:10.0.0.1/*"]',
        SITE + '[workers.web]\nserves = ["http:*.internal/*", "http:a.org/ws/*"]',
        SITE + '[workers.a]\nserves = ["http:/a"]\n[workers.b]\nserves = ["http:/a*", "websocket:/a"]',
    ],
)  # fmt: skip
def test_what_is_right(config, text):
    assert config(text).warnings == []


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (SITE + WEB + 'asgi = "a:b"', "app.asgi", "each table with serves names its own"),
        (SITE + WEB + 'handover = "close"\nstop_timeout = 4', "workers.web.stop_timeout", "cut off"),
        (SITE + 'stop_timeout = 40\n[rollout]\ndrain_spread = 30\n' + WEB + 'handover = "close"',
         "rollout.drain_spread", "stop_timeout is over after 25 s"),
        (SITE + '[workers.web]\nserves = ["http", "websocket:ws/*"]', "workers.web.serves[1]",
         'the host "ws" alone: if that is part of the path, write "websocket:/ws/*"'),
        (SITE + '[workers.web]\nserves = [{ route = "http:intranet/a/b" }]',
         "workers.web.serves[0].route", 'write "http:/intranet/a/b"'),
        (SITE + '[workers.web]\nserves = ["websocket:/ws/<room>/"]', "workers.web.serves[0]",
         'in "websocket:/ws/<room>/", "<" is compared as it stands'),
        (SITE + '[workers.web]\nserves = ["http:/users/{id}*"]', "workers.web.serves[0]", '"{"'),
        (SITE + '[workers.web]\nserves = ["http:/(a|b)/*"]', "workers.web.serves[0]", '"("'),
    ],
)  # fmt: skip
def test_warnings_do_not_stop_anything(config, text, key, words):
    (warning,) = [one for one in config(text).warnings if one.key == key]
    assert words in warning.message


MANY = """\
[app]
asgi = "mysite.asgi:application"
[interface]
[workers.web]
serves = [
    "http",
    { route = "websocket:/ws*x", handover = "no" },
]
[workers.api]
queue_timeout = "30"
serves = ["http:/api/*", "https"]
[[workers.old.serves]]
route = "http:/old/*"
[[workers.old.serves]]
route = "http:/*"
redeliver = 1
"""


def test_each_problem_of_an_entry_has_its_line(problems):
    assert [(problem.line, problem.key) for problem in problems(MANY)] == [
        (5, "workers.web.serves[1].handover"),
        (5, "workers.web.serves[1].route"),
        (10, "workers.api.queue_timeout"),
        (11, "workers.api.serves[1]"),
        (15, "workers.old.serves[1].route"),
        (16, "workers.old.serves[1].redeliver"),
    ]


def test_every_key_of_app_workers_needs_serves(problems):
    """All of them, so that a key that comes later is not forgotten."""
    others = {"command", "ready", "on_reload", "serves", *structure.fields(schema.Pool)}
    others |= {*channels.KEYS, "max_deliveries", "dead_letters", "layer"}
    keys = set(structure.fields(schema.Workers)) - others
    values = {"asgi": '"a:b"', "wsgi": '"a:b"', "python": '"/bin/sh"', "redeliver": "true"}
    values |= {"handover": '"close"', "sticky": '"sid"'}
    lines = "".join(f"{key} = {values.get(key, 1)}\n" for key in keys)
    found = problems(f"[workers.x]\ncommand = 'x'\n{lines}")
    assert {problem.key for problem in found} == {f"workers.x.{key}" for key in keys}
    assert all("is for app workers" in problem.message for problem in found)


def test_there_is_a_limit_to_pools(problems):
    tables = [f'[workers.w{n}]\nserves = ["http:/{n}"]\n' for n in range(64)]
    (problem,) = problems(SITE + "".join(tables))
    assert (problem.key, problem.line) == ("workers.w63.serves", 131)
    assert "63 at most" in problem.message
