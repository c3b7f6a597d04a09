from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chansup.config.load import load
from chansup.config.relay import is_relay
from chansup.errors import ChansupError
from chansup.project import FileExistsAlreadyError, Project, discover, notes, render, write
from chansup.project.project import Consumer, Program

pytestmark = pytest.mark.slow  # the interpreter makes no difference

EXAMPLES = Path(__file__).parents[2] / "examples"


def loaded(tmp_path: Path, project: Project, *, doubtful_commands: bool = False):
    (tmp_path / "manage.py").touch()
    path = tmp_path / "chansup.toml"
    path.write_text(render(project))
    result = load(path, {})
    of_commands = [warning for warning in result.warnings if warning.key.endswith(".command")]
    assert result.warnings == (of_commands if doubtful_commands else [])
    return result.config


def test_a_small_project_gets_a_small_config(tmp_path):
    text = render(Project(directory=tmp_path, asgi="main:app"))
    assert text == (
        "# How chansup runs this project. Try it: chansup check, then chansup run.\n"
        '# Every key is explained in chansup\'s documentation, on the page "Configuration".\n'
        "\n"
        "[app]\n"
        'asgi = "main:app"\n'
        "\n"
        "[interface]\n"
        "# Behind a proxy on this machine: 127.0.0.1:8000, or unix:run/web.sock\n"
        'bind = ["0.0.0.0:${PORT:-8000}"]\n'
        'processes = 2  # or "per-core"\n'
        '# ready = "http:/"  # a page that a new process must answer before it takes connections\n'
    )


def test_a_full_project(tmp_path):
    project = Project(
        directory=tmp_path,
        asgi="mysite.asgi:application",
        is_django=True,
        settings="mysite.settings",
        channels=["thumbnails", "Mail.Out", "not a channel"],
        channel_layer="redis",
        has_env_file=True,
        python=".venv/bin/python",
        programs=[
            Program("worker", "celery -A mysite worker"),
            Program("Thumbnails", ["sh", "-c", "exec x ${HOME} $${Y}"]),
        ],
        release="python manage.py migrate",
    )
    config = loaded(tmp_path, project)
    assert config.app.environment == {"DJANGO_SETTINGS_MODULE": "mysite.settings"}
    assert config.app.env_file == "-.env"
    assert config.app.python is None  # chansup is not there
    assert {name: worker.channels for name, worker in config.workers.items()} == {
        "thumbnails": ["thumbnails"],
        "mail-out": ["Mail.Out"],
    }
    assert config.programs["thumbnails-2"].command == ["sh", "-c", "exec x ${HOME} $${Y}"]
    assert config.tasks["release"].before == ["interface", "workers", "programs"]
    text = (tmp_path / "chansup.toml").read_text()
    assert "# [programs.redis]" in text
    assert "WhiteNoise" in text
    assert "# python =" in text


def test_what_is_suggested_as_a_comment_is_valid_too(tmp_path):
    project = Project(
        directory=tmp_path, asgi="a:b", is_django=True, channel_layer="redis", serves_static=True
    )
    text = render(project)
    for line in ("[tasks.migrate]", "[programs.redis]", "command", "before", "ready"):
        text = text.replace(f"# {line}", line)
    (tmp_path / "chansup.toml").write_text(text)
    config = load(tmp_path / "chansup.toml", {}).config
    assert set(config.tasks) == {"migrate"}
    assert set(config.programs) == {"redis"}


def test_an_in_memory_layer_means_one_process(tmp_path):
    project = Project(directory=tmp_path, asgi="a:b", is_django=True, channel_layer="memory")
    assert loaded(tmp_path, project).interface.processes == 1


def test_websockets_mean_relay_mode(tmp_path):
    project = Project(directory=tmp_path, asgi="main:app", has_websockets=True)
    config = loaded(tmp_path, project)
    assert is_relay(config)
    assert render(project).endswith(
        'processes = 2  # or "per-core"\n'
        "\n"
        "# Relay mode: the processes of [interface] only hold the connections, and these run the "
        "project.\n"
        "# `chansup reload` replaces these, and open WebSockets move to the new ones; after a crash "
        "likewise.\n"
        "# The connection stays; what a consumer keeps in its attributes starts empty: "
        "documentation,\n"
        '# "Relay mode", "Checkpoints". Without this table, [interface] runs the project itself.\n'
        "[workers.web]\n"
        'serves = ["http", "websocket"]\n'
        'processes = "per-core"\n'
        '# ready = "http:/"  # a page that a new process must answer before it takes connections\n'
    )


@pytest.mark.parametrize("has_websockets", [False, True])
def test_a_health_page_is_asked_where_the_app_runs(tmp_path, has_websockets):
    project = Project(
        directory=tmp_path, asgi="a:b", health="/health/", has_websockets=has_websockets
    )
    config = loaded(tmp_path, project)
    table = config.workers["web"] if has_websockets else config.interface
    assert table.ready == "http:/health/"


def test_other_apps_are_named(tmp_path):
    def said(*others: str) -> str:
        (note,) = notes(Project(directory=tmp_path, asgi="main:app", others=list(others)))
        return note

    assert 'another app: "api:app". The file runs main:app. To run that instead' in said("api:app")
    assert '2 other apps: "a:app" and "b:app"' in said("a:app", "b:app")


def test_an_in_memory_layer_means_one_app_worker(tmp_path):
    project = Project(
        directory=tmp_path,
        asgi="a:b",
        is_django=True,
        channel_layer="memory",
        has_websockets=True,
        channels=["web"],
        programs=[Program("web", "x")],
    )
    config = loaded(tmp_path, project)
    assert config.interface.processes == 2
    assert config.workers["web"].processes == 1
    assert config.workers["web-2"].channels == ["web"]
    assert config.programs["web-3"].command == "x"


def test_many_channels_share_a_pool(tmp_path):
    channels = [f"c{number}" for number in range(6)]
    project = Project(directory=tmp_path, asgi="a:b", is_django=True, channels=channels)
    assert loaded(tmp_path, project).workers["background"].channels == channels


CHANSUP = '    CHANNEL_LAYERS = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}'


@pytest.mark.parametrize(
    ("layer", "has_table", "says"),
    [
        ("chansup", True, None),
        ("memory", True, "which ends at the process"),
        (None, True, "mysite.settings has no CHANNEL_LAYERS"),
        ("redis", False, "names channels_redis, and still works"),
        ("other", False, "names another layer, and still works"),
    ],
)
def test_a_project_with_channels(tmp_path, layer, has_table, says):
    project = Project(
        directory=tmp_path,
        asgi="a:b",
        is_django=True,
        settings="mysite.settings",
        channel_layer=layer,
        channels=["thumbnails"],
    )
    config = loaded(tmp_path, project)
    assert config.workers["thumbnails"].channels == ["thumbnails"]
    assert config.channel_layer.backend == "local"
    assert ("\n[channel_layer]\n" in render(project)) == has_table
    said = "".join(notes(project))
    if says is None:
        assert said == ""
    else:
        assert says in said
        assert said.endswith(CHANSUP)


@pytest.mark.parametrize(
    "project",
    [
        Project(directory=Path("/"), asgi="a:b", has_websockets=True),  # Starlette
        Project(directory=Path("/"), asgi="a:b", is_django=True),
    ],
)
def test_a_project_without_channels(project):
    assert "channel_layer" not in render(project)
    assert notes(project) == []


@pytest.mark.parametrize("name", ["hub", "interface", "workers", "1", "-", "ÄÖ", "a" * 90])
def test_names_are_made_valid(tmp_path, name):
    project = Project(directory=tmp_path, asgi="a:b", programs=[Program(name, "x")] * 2)
    assert len(loaded(tmp_path, project).programs) == 2


@settings(deadline=None)
@given(
    st.lists(
        st.builds(Program, st.text(), st.lists(st.text(), min_size=1, max_size=3)), max_size=3
    ),
    st.lists(st.text(), max_size=6),
)
def test_anything_renders_to_something_valid(tmp_path_factory, programs, channels):
    words = [
        Program(program.name, ["x", *(word.replace("\0", "") for word in program.command)])
        for program in programs
    ]
    directory = tmp_path_factory.mktemp("site")
    project = Project(
        directory=directory, asgi="a:b", is_django=True, programs=words, channels=channels
    )
    # Whether a word is meant for a shell is for people to say: it is passed on in any case.
    config = loaded(directory, project, doubtful_commands=True)
    assert [program.command for program in config.programs.values()] == [
        program.command for program in words
    ]


def test_nothing_is_overwritten_unless_asked(tmp_path):
    project = Project(directory=tmp_path, asgi="a:b")
    path = tmp_path / "chansup.toml"
    path.write_text("mine")
    with pytest.raises(FileExistsAlreadyError, match="--force"):
        write(project, path)
    assert path.read_text() == "mine"
    write(project, path, force=True)
    assert path.read_text() == render(project)


def test_a_place_that_cannot_be_written_to(tmp_path):
    with pytest.raises(ChansupError, match="cannot be written"):
        write(Project(directory=tmp_path, asgi="a:b"), tmp_path / "no" / "chansup.toml")


@pytest.mark.skipif(not (EXAMPLES / "chat" / "manage.py").exists(), reason="no chat example")
def test_the_chat_example(tmp_path):
    project = discover(EXAMPLES / "chat")
    assert project.is_django
    assert project.asgi is not None
    config = loaded(tmp_path, project)
    assert is_relay(config)
    assert config.workers["thumbnails"].channels == ["thumbnails"]
    assert "[channel_layer]" in render(project)
    assert notes(project) == []


def test_runworker_becomes_channel_workers(tmp_path):
    project = Project(
        directory=tmp_path,
        asgi="mysite.asgi:application",
        is_django=True,
        channels=["thumbnails"],
        channel_layer="chansup",
        consumers=[Consumer("Worker", ["jobs", "mail"]), Consumer("workers", ["x"], "other")],
    )
    config = loaded(tmp_path, project)
    assert {name: (one.channels, one.layer) for name, one in config.workers.items()} == {
        "worker": (["jobs", "mail"], "default"),
        "workers-2": (["x"], "other"),
        "thumbnails": (["thumbnails"], "default"),
    }
    assert config.programs == {}
    (note,) = notes(project)
    assert 'runworker: "jobs", "mail" and "x". They run the same consumers' in note
