"""What may stand in ``[channel_layer]``, and what follows from it."""

import inspect
import os
import pwd
import sys
from pathlib import Path

import msgspec
import pytest

from chansup.check import probe
from chansup.config import hub, schema, structure
from chansup.config.load import load
from chansup.layer import LocalChannelLayer

pytestmark = pytest.mark.slow  # the interpreter makes no difference

SITE = '[app]\nasgi = "mysite.asgi:application"\n[interface]\n'
LAYER = SITE + "[channel_layer]\n"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('backend = "http://x"', "backend", '"redis://…"'),
        ('backend = "Local"', "backend", 'found "Local"'),
        ('backend = "redis://"', "backend", "no server in"),
        ("backend = 3", "backend", "expected a string or a list"),
        ("backend = []", "backend", "the list is empty"),
        ('backend = ["redis://a", "amqp://b"]', "backend[1]", "only Redis"),
        ('backend = ["local"]', "backend[0]", 'found "local"'),
        ("backend = [1]", "backend[0]", "expected the URL"),
        ("capacity = 3", "capacity", "[channel_layer.options]"),
        ("memori = '3'", "memori", 'did you mean "memory"?'),
        ("memory = '3'", "memory", 'at least "1M"'),
        ("memory = 'lots'", "memory", "256M"),
        ("memory = 256", "memory", 'put it in quotes, "256"'),
        ("connections = 0", "connections", "1 or more"),
        ("user = 'no such'", "user", "unknown user"),
        ("options = { capasity = 3 }", "options.capasity", 'did you mean "capacity"?'),
        ("options = { capacity = 0 }", "options.capacity", "1 or more"),
        ("options = { capacity = '7' }", "options.capacity", "write 7 without quotes"),
        ("options = { expiry = -1 }", "options.expiry", "seconds above 0"),
        ("options = { channel_capacity = { x = 0 } }", "options.channel_capacity.x", "1 or more"),
        ("options = { symmetric_encryption_keys = 'x' }", "options.symmetric_encryption_keys", "a list of strings"),
        ("backend = 'redis://h:port/0'", "backend", "not a number from 1 to 65535"),
        ("backend = ['redis://h', 'redis://h:0']", "backend[1]", "not a number"),
        ("backend = 'redis://:pa/ss@h'", "backend", "p%2Fq"),
        ("backend = 'amqp://h:99999/x'", "backend", "not a number"),
        ("backend = 'redis+sentinel://a:1,b:x/main'", "backend", "not a number"),
        ("backend = 'redis://x'\noptions = { hosts = [] }", "options.hosts", "[channel_layer] backend"),
        ("backend = 'amqp://x'\noptions = { host = 'y' }", "options.host", "[channel_layer] backend"),
        ("backend = 'redis://x'\noptions = { prefix = 5 }", "options.prefix", '"5"'),
        ("backend = 'redis://x'\noptions = { capacity = 'x' }", "options.capacity", "a whole number"),
        ("backend = 'redis://x'\noptions = { expiry = 'y' }", "options.expiry", "a number of seconds"),
        ("backend = 'redis://x'\noptions = { channel_capacity = { a = 'x' } }", "options.channel_capacity.a", "a whole"),
        ("backend = 'redis://x'\noptions = { pubsub = 1 }", "options.pubsub", "true or false"),
        ("backend = 'redis://x'\nmemory = '1G'", "memory", "chansup's own hub"),
        ("backend = 'redis://x'\nconnections = 9", "connections", "chansup's own hub"),
        ("backend = 'redis://x'\nuser = 'root'", "user", "chansup's own hub"),
    ],
)  # fmt: skip
def test_rule(problems, text: str, key: str, words: str) -> None:
    found = problems(LAYER + text)
    assert [problem.key for problem in found] == [f"channel_layer.{key}"]
    assert words in found[0].message
    assert found[0].line is not None and found[0].line >= 5


@pytest.mark.parametrize("scheme", ["http", "redis+sentinal", "amqp+x"])
def test_no_password_is_shown(problems, scheme: str) -> None:
    for backend in (f'"{scheme}://me:hunter2@host"', f'["redis://x", "{scheme}://:hunter2@host"]'):
        (found,) = problems(f"{LAYER}backend = {backend}")
        assert "hunter2" not in found.message
        assert f"{scheme}://" in found.message
    (found,) = problems(LAYER + 'backend = "me:hunter2@host"')
    assert "hunter2" not in found.message


@pytest.mark.parametrize(
    "text",
    [
        'backend = "rediss://:secret@host:1/2"',
        'backend = "unix:///run/redis.sock"',
        'backend = "redis+sentinel://one,two/main"',
        'backend = "redis+sentinel://:p%2Fq@one:1,[::1]:2/main/3"',
        'backend = "redis://[::1]:6379/0"\noptions = { capacity = 3, expiry = 2, prefix = "x" }',
        'backend = "amqps://guest@host/vhost"\noptions = { local_capacity = 3 }',
        'backend = ["redis://a", { host = "b", port = 3 }]\noptions = { whatever = true }',
        'backend = "${LAYER:-local}"\nmemory = "${MEMORY:-1G}"',
        'options = { capacity = 3, channel_capacity = { "thumbs.*" = 4 }, timeout = 1 }',
    ],
)
def test_what_is_right(tmp_path: Path, text: str) -> None:
    (tmp_path / "chansup.toml").write_text(LAYER + text)
    loaded = load(tmp_path / "chansup.toml", {})
    assert loaded.warnings == []
    assert hub.starts_at_once(loaded.config, loaded.document) == hub.is_local(loaded.config)


def test_options_come_as_numbers_out_of_variables(tmp_path: Path) -> None:
    (tmp_path / "chansup.toml").write_text(LAYER + 'options = { capacity = "${CAPACITY}" }')
    loaded = load(tmp_path / "chansup.toml", {"CAPACITY": "9"})
    assert loaded.config.channel_layer.options == {"capacity": 9}  # and no defaults
    assert hub.place(loaded, {}).options == {"capacity": 9}


def test_the_options_are_those_of_the_layer() -> None:
    taken = inspect.signature(LocalChannelLayer).parameters
    known = structure.fields(schema.LocalOptions)
    assert set(known) == set(taken) - {"address"}
    for name, field in known.items():
        default = field.default if field.default is not msgspec.NODEFAULT else None
        assert (default or None) == (taken[name].default or None), name


def test_options_of_a_server_may_stand_in_variables(tmp_path: Path) -> None:
    options = 'capacity = "${CAPACITY}", group_expiry = "${EXPIRY}", prefix = "${CAPACITY}", x = 7'
    (tmp_path / "chansup.toml").write_text(
        f'{LAYER}backend = "redis://x"\noptions = {{ {options} }}'
    )
    config = load(tmp_path / "chansup.toml", {"CAPACITY": "7", "EXPIRY": "60"}).config
    found = config.channel_layer.options
    assert found == {"capacity": 7, "group_expiry": 60, "prefix": "7", "x": 7}
    assert type(found["group_expiry"]) is int  # Redis takes no other


def test_the_hub_starts_at_once_where_somebody_speaks_of_it(tmp_path: Path) -> None:
    for text, expected in [
        (SITE, False),
        (LAYER, True),
        (LAYER + 'backend = "redis://x"', False),
        (SITE + "[workers.x]\nchannels = ['y']", True),
        (SITE + "[workers.x]\nonly_channels = ['y*']", True),
        (SITE + "[workers.x]\ncommand = 'x'", False),
    ]:
        (tmp_path / "chansup.toml").write_text(text)
        loaded = load(tmp_path / "chansup.toml", {})
        assert hub.starts_at_once(loaded.config, loaded.document) is expected, text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has users to choose from")
def test_the_hub_runs_as_all_pools_do_if_they_agree(tmp_path: Path) -> None:
    other = '[programs.x]\ncommand = "x"\n'
    for text, user in [
        (SITE, None),
        (SITE + 'user = "nobody"\n', "nobody"),
        (SITE + 'user = "nobody"\n' + other, None),
        (SITE + 'user = "nobody"\n' + other + 'user = "nobody"\n', "nobody"),
        (SITE + 'user = "nobody"\n' + other + 'user = "daemon"\n', None),
        (LAYER + 'user = "daemon"\n', "daemon"),
    ]:
        (tmp_path / "chansup.toml").write_text(text)
        config = load(tmp_path / "chansup.toml", {}).config
        assert hub.owner(config) == hub.Owner(user), text
    assert len(hub.users(config)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has users to choose from")
def test_the_interface_of_relay_mode_is_no_client_of_the_hub(tmp_path: Path) -> None:
    front = SITE + 'user = "nobody"\n'
    workers = '[workers.web]\nserves = ["http"]\nuser = "daemon"\n'
    daemon, nobody = (pwd.getpwnam(name).pw_uid for name in ("daemon", "nobody"))
    for text, user, allowed in [
        (front + workers, "daemon", {0, daemon}),
        (front, "nobody", {0, nobody}),
        (front + 'command = "x"\n[programs.y]\ncommand = "y"\n', None, {0, nobody}),
        (
            front + workers + '[tasks.y]\ncommand = "y"\nuser = "nobody"\n',
            "daemon",
            {0, daemon, nobody},
        ),
    ]:
        (tmp_path / "chansup.toml").write_text(text)
        config = load(tmp_path / "chansup.toml", {}).config
        assert hub.owner(config).user == user, text
        assert hub.users(config) == allowed, text


def probed(directory: Path, app: str, layer: str) -> list[str]:
    (directory / "mysite.py").write_text(app + "async def app(scope, receive, send): ...\n")
    (directory / "chansup.toml").write_text(
        f'[app]\nasgi = "mysite:app"\npython = "{sys.executable}"\n[interface]\n[channel_layer]\n{layer}'
    )
    loaded = load(directory / "chansup.toml", os.environ)
    return [f"{one.key}: {one.message}" for one in probe.ask(loaded, os.environ).problems]


def test_a_layer_that_is_made_at_import_needs_no_site_that_runs(tmp_path: Path) -> None:
    made = "from chansup.layer import ChannelLayer\nlayer = ChannelLayer()\nassert layer.capacity == 7\n"
    assert probed(tmp_path, made, "options = { capacity = 7 }") == []


@pytest.mark.parametrize(
    ("backend", "package"),
    [("redis://:hunter2@x", "channels_redis"), ("amqp://:hunter2@x", "channels_rabbitmq")],
)
def test_check_misses_the_package_of_the_layer(tmp_path: Path, backend: str, package: str) -> None:
    without = "import sys\nsys.path[:] = [one for one in sys.path if 'site-packages' not in one]\n"
    (problem,) = probed(tmp_path, without, f'backend = "{backend}"')
    assert problem.startswith(f"channel_layer.backend: needs {package}, where the app runs")
    assert "hunter2" not in problem


def test_check_tells_what_the_class_says_of_its_options(tmp_path: Path) -> None:
    """The app makes its layer when it is imported; it is not the app that is wrong."""
    made = "from chansup.layer import ChannelLayer\nlayer = ChannelLayer()\n"
    wrong = (
        'backend = "redis://x"\noptions = { random_prefix_length = "x", serializer_format = "y" }'
    )
    found = probed(tmp_path, made, wrong)
    assert len(found) == 1
    assert found[0].startswith("channel_layer.options: "), found
    assert "Traceback" not in found[0]
    assert "choice.py" not in found[0]
