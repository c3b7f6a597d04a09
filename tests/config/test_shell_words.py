"""What only a shell would act on is named in commands that no shell runs, and nothing else is."""

import pytest

from chansup.config.shell_words import doubtful

DOUBTFUL: list[tuple[str | list[str], str, str]] = [
    ("gunicorn -b :$PORT app", "$PORT", "${PORT}"),
    ('worker --name "$NAME-1"', "$NAME", "${NAME}"),
    (["worker", "--name=$NAME"], "$NAME", "${NAME}"),
    ("celery -A site worker -c $CONCURRENCY", "$CONCURRENCY", "${CONCURRENCY}"),
    ("worker -n $(hostname)", "$(hostname)", "sh"),
    (["worker", "`hostname`"], "`hostname`", "sh"),
    ("worker $1", "$1", "sh"),
    ("~/bin/worker", "~/bin/worker", '"${HOME}/bin/worker"'),
    (["worker", "~/data"], "~/data", '"${HOME}/data"'),
    ("worker >log", ">log", "sh"),
    ("worker 2>>log", "2>>log", "sh"),
    (["worker", ">", "log"], ">", "sh"),
    (["one", "&&", "two"], "&&", "sh"),
    ("one; two", "one;", "sh"),
    ("one&&two", "one&&two", "sh"),
    ("lint src/*.py", "src/*.py", "sh"),
    ("DEBUG=1 worker", "DEBUG=1", "environment"),
    ("cd sub", "cd", "sh"),
    ("nice python manage.py serve --port $PORT", "$PORT", "${PORT}"),
]

MEANT: list[str | list[str]] = [
    "worker --port ${PORT} --url ${URL:-http://x/?a=1&b=2}",
    "worker 'costs $FIVE' '~/x' 'a && b' '*.py'",
    r"worker \$PORT",
    "worker --url http://x/?a=1&b=2",
    "worker --allow-ips * --hosts '*'",
    ["worker", "*.example.org", "$${NAME}"],
    ["sh", "-c", "exec worker --port $PORT > log && ~/x $(y)"],
    ["/bin/bash", "-euc", "cd x; exec y $Z", "name", "$1"],
    ["nice", "-n", "5", "sh", "-c", "worker $PORT | tee log"],
    ["su", "app", "-c", "worker $PORT"],
    ["python", "-c", "print('$x')"],
    ["perl", "-e", "print $x"],
    ["awk", "{print $NF}", "file"],
    "sed -e s/a$/b/ file",
    "worker a;b x=1 --set a=~b",
    "",
]


@pytest.mark.parametrize(("command", "what", "remedy"), DOUBTFUL)
def test_what_needs_a_shell_is_named_once(command: str | list[str], what: str, remedy: str) -> None:
    (message,) = doubtful(command)
    assert message.startswith(f'"{what}" is passed as it stands')
    assert remedy in message.partition(":")[2]


@pytest.mark.parametrize("command", MEANT)
def test_what_is_meant_is_let_pass(command: str | list[str]) -> None:
    assert list(doubtful(command)) == []
