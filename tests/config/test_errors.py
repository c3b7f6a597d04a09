"""Everything that is wrong is said, at once, each at its place."""

import re

import pytest

pytestmark = pytest.mark.slow  # the interpreter makes no difference

MANY = """\
[app]
agsi = "x:y"                                 # app.agsi: did you mean "asgi"?
asgi = "mysite/asgi.py:application"          # app.asgi: "mysite.asgi:application"
environment = { "A B" = "x", C = 3 }         # app.environment."A B": not a name # app.environment.C: put it in quotes, "3"

[interface]
bind = ["127.0.0.1:8000", "foo", ":8000000"] # interface.bind[1]: has no port # interface.bind[2]: is not a port
bnid = 3                                     # interface.bnid: did you mean "bind"?
server = "uvicron"                           # interface.server: did you mean "uvicorn"?
processes = "4"                              # interface.processes: without quotes
workers = 4                                  # interface.workers: did you mean "processes"?
settle = 3                                   # interface.settle: belongs in [rollout]
umask = 0o27                                 # interface.umask: in quotes, "027"
health_path = "health"                       # interface.health_path: expected a path
after = "redis"                              # interface.after: write ["redis"]
ws_ping_interval = 20                        # interface.ws_ping_interval: [interface.options]
backlog = "${UNSET_VARIABLE}"                # interface.backlog: UNSET_VARIABLE is not set
user = "no such user"                        # interface.user: unknown user
on_max_restarts = "exit"                     # interface.on_max_restarts: without max_restarts

[workers.thumbs]                             # workers.thumbs: found none of them
stop_signal = "SIGTREM"                      # workers.thumbs.stop_signal: did you mean "TERM"?
limits.nofiles = 3                           # workers.thumbs.limits.nofiles: did you mean "nofile"?
limits.core = "200:100"                      # workers.thumbs.limits.core: is above the hard limit

[programs.redis]
command = "redis-server | tee log"           # programs.redis.command: "|" means nothing
after = ["clok"]                             # programs.redis.after[0]: unknown pool "clok"
ready = "tpc:6379"                           # programs.redis.ready: "tcp:6379"
start_timeout = -1                           # programs.redis.start_timeout: above 0, found the number -1

[programs.clock]                             # programs.clock.command: is missing
on_reload = true                             # programs.clock.on_reload: found true

[programs.thumbs]                            # programs.thumbs: has the same name
command = ["x"]

[programs."Bad Name"]                        # programs."Bad Name": not a name of a pool
command = "x"

[tasks.migrate]
command = []                                 # tasks.migrate.command: is empty
before = ["interfce"]                        # tasks.migrate.before[0]: unknown pool "interfce"
timeout = nan                                # tasks.migrate.timeout: found nan

[rollout]
surge = 0                                    # rollout.surge: 1 or more
shutdown_delay = 30                          # rollout.shutdown_delay: is part of stop_timeout
keep_alive = 1979-05-27                      # rollout.keep_alive: found the date or time

[admin]
bind = "localhost"                           # admin.bind: has no port

[log]
keep_lines = 1_000_000                       # log.keep_lines: from 1 to 10000
format = ["json"]                            # log.format: found a list

[channels]                                   # channels: unknown key in the top of the file
"""


def _expected(text):
    for number, line in enumerate(text.splitlines(), start=1):
        for key, words in re.findall(r"# (\S+?(?:\"[^\"]*\"\S*?)?): (.*?)(?= # |$)", line):
            yield key, number, words


def test_all_at_once_each_with_its_line(problems):
    found = {problem.key: problem for problem in problems(MANY)}
    expected = list(_expected(MANY))
    assert len(expected) == 40
    assert set(found) == {key for key, _, _ in expected}
    for key, line, words in expected:
        assert (key, found[key].line) == (key, line)
        assert words in found[key].message


def test_problems_stand_in_the_order_of_the_file(problems):
    lines = [problem.line or 0 for problem in problems(MANY)]
    assert lines == sorted(lines)


def test_the_error_names_file_line_and_key(config, tmp_path):
    with pytest.raises(Exception, match=r"/chansup\.toml:2: interface\.bnd: unknown key") as caught:
        config("[interface]\nbnd = 1\n")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("[interface]\n\nbind = [\n  'x',\n  '8000'\n]\n[app]\nasgi='a:b'", "interface.bind[0]", 3),
        ("[app]\nasgi='a:b'\n[interface.options]\nx = 1979-05-27", "interface.options.x", 4),
        ("app.asgi='a:b'\ninterface.limits.x = 1", "interface.limits.x", 2),
        ("[app]\n[interface]\n[[interface.options.t]]\n[[interface.options.t]]\nx = 1979-05-27",
         "interface.options.t[1].x", 5),
        ("[app]\nasgi='''a\nb'''\n[interface]\nbind=''", "app.asgi", 2),
    ],
)  # fmt: skip
def test_lines_in_every_notation(problems, text, key, line):
    assert (key, line) in [(problem.key, problem.line) for problem in problems(text)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("unicorn", "uvicorn"), ("gunicron", "gunicorn"), ("Uvicorn", "uvicorn"), ("g", None)],
)
def test_which_server_was_meant(problems, written, meant):
    (problem,) = problems(f'[app]\nasgi = "a:b"\n[interface]\nserver = "{written}"\n')
    assert problem.message.endswith(f': did you mean "{meant}"?' if meant else f'"{written}"')


def test_a_table_that_is_missing_has_no_line(problems):
    (problem,) = problems("[interface]\n")
    assert (problem.key, problem.line) == ("app", None)


def test_a_wrong_value_is_not_reported_twice(problems):
    assert len(problems("[app]\nasgi = 3\n[interface]\n")) == 1
    assert len(problems("[app]\nasgi = '${NO}'\n[interface]\n")) == 1
    assert len(problems("[programs.x]\ncommand = 3\n")) == 1


def test_an_empty_file_has_nothing_to_run(problems):
    (problem,) = problems("")
    assert "nothing to run" in problem.message


def test_no_control_characters_reach_the_terminal(problems):
    (problem,) = problems('[app]\nasgi = "\\u001b[31m"\n[interface]\n')
    assert "\x1b" not in problem.message
    assert "\\x1b" in problem.message
