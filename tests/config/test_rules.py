import os
import resource

import pytest

pytestmark = pytest.mark.slow  # the interpreter makes no difference

SITE = '[app]\nasgi = "mysite.asgi:application"\n[interface]\n'
DJANGO = SITE + "[workers.x]\nenvironment = { DJANGO_SETTINGS_MODULE = 's' }\n"
REDIS = '[programs.redis]\ncommand = "redis-server"\n'


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('[app]\nasgi="a:b"\nwsgi="a:b"\n[interface]', "app.wsgi", "keep one"),
        ('[app]\nasgi="mysite.asgi"\n[interface]', "app.asgi", 'write "mysite.asgi:application"'),
        ('[app]\nasgi="main.py"\n[interface]', "app.asgi", 'write "main:app"'),
        ('[app]\nwsgi="a:app()"\n[interface]', "app.wsgi", 'write "a:app"'),
        ('[app]\ndirectory="x"\n' + REDIS, "app.directory", "does not exist"),
        ('[app]\ndirectory="~/x"\n' + REDIS, "app.directory", "${HOME}"),
        ("[interface]", "app", "nothing to serve"),
        (SITE + 'ready="notify"', "interface.ready", '"notify" cannot be asked of a server'),
        (SITE + 'ready="http:8000/x"', "interface.ready", 'asked for a page, "http:/health"'),
        (SITE + 'ready="http://a b/x"', "interface.ready", '"a b" is not a host'),
        ('[interface]\ncommand="x"\nserver="daphne"', "interface.server", "no effect beside"),
        ('[interface]\ncommand="x"\noptions={}', "interface.options", "no effect beside"),
        (SITE + "bind=[]", "interface.bind", "at least one"),
        (SITE + 'bind=["8000","127.0.0.1:8000"]', "interface.bind[1]", "same address"),
        (SITE + 'bind=["localhost:1","1"]', "interface.bind[1]", "same address"),
        (SITE + 'bind=["unix:a","unix:./b/../a"]', "interface.bind[1]", "same address"),
        (SITE + 'bind=["systemd","systemd:x"]', "interface.bind[1]", "same address"),
        (SITE + 'bind="127.0.0.1:9180"', "admin.bind", "same address"),
        (SITE + '[admin]\nbind="systemd"', "admin.bind", "cannot come from systemd"),
        (SITE + f'bind="unix:{"x" * 120}"', "interface.bind", "path of a Unix socket"),
        (SITE + 'unix_mode="abc"', "interface.unix_mode", "not an octal mode"),
        (SITE + "[programs.x]\ncommand='x'\nready='accepts'", "programs.x.ready", "is for [interface]"),
        (SITE + "[programs.hub]\ncommand='x'", "programs.hub", "chansup's own word"),
        (SITE + "[tasks.interface]\ncommand='x'", "tasks.interface", "chansup's own word"),
        (SITE + "[programs._]\ncommand='x'", "programs._", "not a name of a pool"),
        (SITE + "[programs.x]\ncommand='a \"b'", "programs.x.command", "cannot be split"),
        (SITE + "[programs.x]\ncommand='a && b'", "programs.x.command", '"sh", "-c"'),
        (SITE + "[workers.x]\ncommand='x'\nchannels=['y']", "workers.x.channels", "one of them"),
        (SITE + "[workers.x]\nchannels=[]", "workers.x.channels", "at least one"),
        (DJANGO + "channels=['a b']", "workers.x.channels[0]", "not a name of a channel"),
        (DJANGO + "channels=['a','a']", "workers.x.channels[1]", "listed twice"),
        (SITE + "processes=-1", "interface.processes", "expected 0 to"),
        (SITE + "processes=2\nmin_ready=3", "interface.min_ready", "never be ready"),
        (SITE + "after=['interface']", "interface.after[0]", "cannot wait for itself"),
        (SITE + "stop_signal='9'", "interface.stop_signal", "is not a signal"),
        (SITE + "umask='9'", "interface.umask", "not an octal mode"),
        (SITE + "group='no such'", "interface.group", "unknown group"),
        (SITE + "user='4000000001'", "interface.user", "give its group too"),
        (SITE + "limits={nofile='x'}", "interface.limits.nofile", "is not a limit"),
        (SITE + "limits={RLIMIT_NOFILE=1}", "interface.limits.RLIMIT_NOFILE", '"nofile"'),
        (SITE + "environment={'A=B'='x'}", 'interface.environment."A=B"', "not a name of an env"),
        (SITE + "stop_timeout=0.2", "interface.stop_timeout", "must be shorter"),
        (SITE + "[rollout]\nsettle=30", "rollout.settle", "must be shorter"),
        (SITE + "[rollout]\nshutdown_delay=25", "rollout.shutdown_delay", "must be shorter"),
        (SITE + "[programs.x]\ncommand='x'\ndirectory='y'", "programs.x.directory", "not exist"),
    ],
)  # fmt: skip
def test_rule(problems, text, key, words):
    (problem,) = problems(text)
    assert problem.key == key
    assert words in problem.message


@pytest.mark.parametrize(
    "text",
    [
        '[app]\nasgi = "mysite.api.asgi:Site.application"\n[interface]',
        '[app]\nwsgi = "app:app"\n[interface]\nserver = "daphne"',
        '[interface]\ncommand = "python chat.py --fd {fd}"\nready = "notify"',
        SITE + 'bind = ["0.0.0.0:80", "[::]:80", "127.0.0.1:80", ":0", ":0"]',
        SITE + 'limits = { nofile = "10:10", core = "unlimited", nproc = 5 }\numask = "0o027"',
        SITE + 'processes = 0\n[admin]\nbind = ""',
        REDIS + 'after = ["tasks", "x"]\n[workers.x]\ncommand = "x"\nafter = ["workers"]',
        SITE + '[workers.x]\nchannels = ["a"]\nenvironment = { DJANGO_SETTINGS_MODULE = "s" }',
        SITE + 'max_restarts = 0\non_max_restarts = "exit"\nstop_signal = "SIGQUIT"',
    ],
)
def test_what_is_right(config, text):
    config(text)


def test_channels_are_enough_beside_a_manage_py(config, tmp_path):
    (tmp_path / "manage.py").touch()
    assert config(SITE + '[workers.x]\nchannels = ["a"]').config.workers["x"].channels == ["a"]


def test_a_circle_is_named_once_in_the_order_of_waiting(problems):
    (problem,) = problems(
        "[programs.a]\ncommand='x'\nafter=['b']\n[programs.b]\ncommand='x'\nafter=['t']\n"
        "[tasks.t]\ncommand='x'\nafter=['a']\n"
    )
    circles = [
        f"{a} waits for {b} waits for {c} waits for {a}" for a, b, c in ("abt", "bta", "tab")
    ]
    assert any(circle in problem.message for circle in circles)


def test_a_task_before_what_it_comes_after_is_a_circle(problems):
    (problem,) = problems(
        "[programs.a]\ncommand='x'\n[tasks.t]\ncommand='x'\nafter=['a']\nbefore=['programs']\n"
    )
    assert "can never start" in problem.message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (SITE + '[admin]\nbind = "0.0.0.0:9180"', "admin.bind"),
        (SITE + "stop_timeout = 3", "rollout.drain_spread"),
        (SITE + '[tasks.t]\ncommand = "x"', "tasks.t"),
        ('[app]\nasgi = "a:b"\n' + REDIS, "app.asgi"),
    ],
)
def test_warnings_do_not_stop_anything(config, text, key):
    (warning,) = config(text).warnings
    assert warning.key == key
    assert warning.message


@pytest.fixture
def ordinary_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(os, "getegid", lambda: 65534)


@pytest.mark.usefixtures("ordinary_user")
def test_only_root_sets_users(problems, config):
    (problem,) = problems(SITE + 'user = "root"')
    assert "can only be set by root" in problem.message
    assert config(SITE + 'user = "65534"\ngroup = "65534"').config.interface.user == "65534"


@pytest.mark.usefixtures("ordinary_user")
def test_only_root_raises_hard_limits(problems, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    (problem,) = problems(SITE + "limits = { nofile = 101 }")
    assert "LimitNOFILE=" in problem.message
