import os
import sys
from pathlib import Path

import pytest

from chansup.project import NothingFoundError, Project, discover
from chansup.project.errors import SeveralFoundError
from chansup.project.project import Consumer

pytestmark = pytest.mark.slow  # the interpreter makes no difference

MANAGE = """
import os, sys
def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    raise SystemExit("never run this")
"""
ASGI = """
import never_installed
application = never_installed.get_asgi_application()
"""


@pytest.fixture
def files(tmp_path: Path):
    def write(contents: dict[str, str]) -> Path:
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def django(**more: str) -> dict[str, str]:
    return {
        "manage.py": MANAGE,
        "mysite/__init__.py": "",
        "mysite/asgi.py": ASGI,
        "mysite/wsgi.py": "application = 1",
        "mysite/settings.py": "",
        **{name.replace("__", "/"): text for name, text in more.items()},
    }


def test_a_django_project(files):
    directory = files(django())
    assert discover(directory) == Project(
        directory=directory,
        asgi="mysite.asgi:application",
        is_django=True,
        settings="mysite.settings",
    )


def test_settings_say_where_the_app_is(files):
    found = discover(
        files(
            {
                **django(),
                "mysite/settings.py": "ASGI_APPLICATION = 'chat.routing.app'\n",
                "chat/routing.py": "app = 1",
            }
        )
    )
    assert found.asgi == "chat.routing:app"


def test_settings_that_name_a_module_that_is_not_there(files):
    found = discover(files({**django(), "mysite/settings.py": "ASGI_APPLICATION = 'no.x'"}))
    assert found.asgi == "mysite.asgi:application"


def test_only_wsgi(files):
    contents = django()
    del contents["mysite/asgi.py"]
    found = discover(files(contents))
    assert (found.asgi, found.wsgi) == (None, "mysite.wsgi:application")


def test_split_settings_and_a_project_one_level_down(files):
    found = discover(
        files(
            {
                "backend/manage.py": MANAGE.replace(
                    "mysite.settings", "mysite.settings.production"
                ),
                "backend/mysite/asgi.py": ASGI,
                "backend/mysite/settings/__init__.py": "",
                "backend/mysite/settings/base.py": "CHANNEL_LAYERS = {'B': 'channels_redis.core'}",
                "backend/mysite/settings/production.py": "MIDDLEWARE = ['whitenoise.middleware']",
                "backend/.env": "A=1",
            }
        )
    )
    assert found.app_directory == "backend"
    assert found.settings == "mysite.settings.production"
    assert (found.channel_layer, found.serves_static, found.has_env_file) == ("redis", True, True)


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("", None),
        ("CHANNEL_LAYERS = {'BACKEND': 'channels_redis.core.RedisChannelLayer'}", "redis"),
        ("CHANNEL_LAYERS = {'BACKEND': 'channels.layers.InMemoryChannelLayer'}", "memory"),
        ("CHANNEL_LAYERS = {'BACKEND': 'chansup.layer.ChannelLayer'}", "chansup"),
        ("CHANNEL_LAYERS = {'BACKEND': 'mysite.layer.Mine'}", "other"),
    ],
)
def test_the_channel_layer(files, text, layer):
    assert discover(files({**django(), "mysite/settings.py": text})).channel_layer == layer


ROUTING = """
from channels.routing import ChannelNameRouter, ProtocolTypeRouter
from .x import Consumer
ROUTES = {"previews": Consumer.as_asgi(), OTHER: 1, **MORE}
application = ProtocolTypeRouter({
    "websocket": 1,
    "channel": ChannelNameRouter({"thumbnails": Consumer.as_asgi(), "mail.out": 1}),
})
other = ChannelNameRouter(ROUTES)
"""


def test_channels_are_read_from_the_router(files):
    found = discover(files({**django(), "chat/routing.py": ROUTING}))
    assert found.channels == ["thumbnails", "mail.out", "previews"]


def test_channels_are_found_through_imports(files):
    found = discover(
        files(
            {
                **django(),
                "mysite/asgi.py": "from rooms.routing import channels as routes\n"
                "application = ProtocolTypeRouter({'channel': ChannelNameRouter(routes)})",
                "rooms/__init__.py": "BOTS = 'bots'",
                "rooms/routing.py": "from .names import MAIL\nfrom . import BOTS\n"
                "channels = {MAIL: 1, BOTS: 2, UNKNOWN: 3}",
                "rooms/names.py": "from .routing import LOOP\nMAIL = 'mail'",
            }
        )
    )
    assert found.channels == ["mail", "bots"]


def test_channels_of_the_procfile_are_not_run_twice(files):
    procfile = (
        "web: daphne mysite.asgi:application\n"
        "worker: python manage.py runworker thumbnails\n"
        "release: python manage.py migrate\n"
        "# a comment\n"
        "clock: FOO=1 python clock.py --at ${CLOCK:-5}\n"
        "bot: python bot.py $TOKEN\n"
        "watch: sleep 1 | cat\n"
    )
    found = discover(files({**django(), "chat/routing.py": ROUTING, "Procfile": procfile}))
    assert found.channels == ["mail.out", "previews"]
    assert found.consumers == [Consumer("worker", ["thumbnails"])]
    assert found.release == "python manage.py migrate"
    assert {program.name: program.command for program in found.programs} == {
        "clock": ["bash", "-c", "FOO=1 python clock.py --at ${CLOCK:-5}"],
        "bot": ["bash", "-c", "exec python bot.py $TOKEN"],
        "watch": ["bash", "-c", "sleep 1 | cat"],
    }


@pytest.mark.parametrize(
    ("contents", "directory", "asgi"),
    [
        ({"main.py": "from fastapi import FastAPI\napp = FastAPI()"}, ".", "main:app"),
        ({"app/main.py": "import fastapi\nxy = fastapi.FastAPI()"}, ".", "app.main:xy"),
        ({"src/shop/api.py": "app: Starlette = Starlette()"}, "src", "shop.api:app"),
        ({"web/__init__.py": "app = Quart(__name__)"}, ".", "web:app"),
        ({"plain.py": "async def app(scope, receive, send): ..."}, ".", "plain:app"),
        ({"main.py": "app = FastAPI()", "admin/main.py": "app = FastAPI()"}, ".", "main:app"),
        ({"main.py": "sub = FastAPI()\napp = FastAPI()"}, ".", "main:app"),
        ({"a-b.py": "app = FastAPI()", "c.py": "app = FastAPI()"}, ".", "c:app"),
        ({"flask_app.py": "app = Flask(__name__)", "z.py": "api = FastAPI()"}, ".", "z:api"),
    ],
)
def test_other_frameworks(files, contents, directory, asgi):
    found = discover(files(contents))
    assert (found.app_directory, found.asgi, found.wsgi) == (directory, asgi, None)
    assert not found.is_django


def test_flask(files):
    found = discover(files({"wsgi.py": "application = Flask(__name__)"}))
    assert (found.asgi, found.wsgi) == (None, "wsgi:application")


@pytest.mark.parametrize(
    "contents",
    [
        {},
        {"main.py": "print('app = FastAPI()')"},
        {"main.py": "app = FastAPI("},
        {"main.py": "def make():\n    app = FastAPI()\n    return app"},
        {"test_main.py": "app = FastAPI()", "tests/main.py": "app = FastAPI()"},
        {"venv/pyvenv.cfg": "", "venv/lib/main.py": "app = FastAPI()"},
        {"my-env/pyvenv.cfg": "", "my-env/main.py": "app = FastAPI()"},
        {"node_modules/x/main.py": "app = FastAPI()", ".hidden/main.py": "app = FastAPI()"},
        {"manage.py": MANAGE},
    ],
)
def test_nothing_is_found_and_the_error_says_what_was_looked_for(files, contents):
    with pytest.raises(NothingFoundError, match=r"manage\.py.*FastAPI"):
        discover(files(contents))


def test_a_current_release(files, tmp_path):
    files({f"releases/2/{name}": text for name, text in django().items()})
    (tmp_path / "current").symlink_to("releases/2")
    # Only what the link points to counts: releases are not searched by chance.
    found = discover(tmp_path)
    assert (found.directory, found.app_directory) == (tmp_path, "current")
    assert found.asgi == "mysite.asgi:application"


def test_virtual_environments(files, tmp_path):
    files({**django(), ".venv/pyvenv.cfg": ""})
    assert discover(tmp_path).python is None
    (tmp_path / ".venv/bin").mkdir()
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    found = discover(tmp_path)
    assert (found.python, found.python_has_chansup) == (".venv/bin/python", False)
    (tmp_path / ".venv/lib/python3.11/site-packages/chansup").mkdir(parents=True)
    assert discover(tmp_path).python_has_chansup


def test_the_environment_that_chansup_runs_in_needs_no_mention(files, tmp_path, monkeypatch):
    files({**django(), "venv/pyvenv.cfg": "", "venv/bin/python": ""})
    (tmp_path / "venv/bin/python").chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    assert discover(tmp_path).python is None


def test_files_that_cannot_be_read_are_passed_over(files, tmp_path):
    files(django())
    (tmp_path / "broken.py").write_bytes(b"\xff\xfe\x00app = FastAPI()")
    (tmp_path / "deep.py").write_text("x = " + "(" * 5000)
    os.mkfifo(tmp_path / "fifo.py")
    (tmp_path / "dangling.py").symlink_to("nowhere")
    assert discover(tmp_path).is_django


@pytest.mark.parametrize(
    "contents",
    [
        {"mysite/asgi.py": "application = ProtocolTypeRouter({'http': 1, 'websocket': 2})"},
        {"mysite/asgi.py": "application = ProtocolTypeRouter(ROUTES)\nROUTES = {'websocket': 2}"},
        {"chat/consumers.py": "class Chat(AsyncJsonWebsocketConsumer): ..."},
        {"chat/consumers.py": "class Chat(Mixin, generic.WebsocketConsumer): ..."},
        {
            "chat/plain.py": "async def app(s, r, send):\n    await send({'type': 'websocket.accept'})"
        },
    ],
)
def test_websockets_of_a_django_project(files, contents):
    assert discover(files({**django(), **contents})).has_websockets


@pytest.mark.parametrize(
    "text",
    [
        "app = FastAPI()\n@app.websocket('/ws')\nasync def chat(websocket): ...",
        "app = FastAPI()\nrouter = APIRouter()\n@router.websocket('/')\nasync def x(w): ...",
        "app = FastAPI()\napp.add_api_websocket_route('/ws', chat)",
        "app = Starlette(routes=[Route('/', page), WebSocketRoute('/ws', chat)])",
        "app = Starlette()\n@app.websocket_route('/ws')\nclass E(x.WebSocketEndpoint): ...",
        "app = Quart(__name__)\n@app.websocket('/ws')\nasync def ws(): ...",
        "@websocket('/ws')\nasync def ws(socket): ...\napp = Litestar([ws])",
    ],
)
def test_websockets_of_other_frameworks(files, text):
    assert discover(files({"main.py": text})).has_websockets


@pytest.mark.parametrize(
    "contents",
    [
        django(),
        {
            **django(),
            "mysite/asgi.py": "# no websocket\napplication = ProtocolTypeRouter({'http': 1})",
        },
        {**django(), "mysite/routing.py": ROUTING.replace('"websocket"', '"websocket.http"')},
        {**django(), "chat/tests/test_x.py": "class Chat(WebsocketConsumer): ..."},
        {**django(), "chat/x.py": "# websocket\nclass Chat(SyncConsumer):\n    websocket = 1"},
        {"main.py": "from fastapi import FastAPI, WebSocket\napp = FastAPI()"},
        {"main.py": "app = Flask(__name__)\n@sock.websocket('/ws')\ndef x(): ..."},
    ],
)
def test_no_websockets(files, contents):
    assert not discover(files(contents)).has_websockets


@pytest.mark.parametrize(
    ("command", "consumer"),
    [
        ("python manage.py runworker -v 2 mail mail bots", Consumer("x", ["mail", "bots"])),
        ("venv/bin/python -m django runworker mail --layer jobs", Consumer("x", ["mail"], "jobs")),
        ("django-admin runworker --layer=jobs mail", Consumer("x", ["mail"], "jobs")),
        ("python manage.py runworker --settings mysite.other mail", None),
        ("python manage.py runworker mail $MORE", None),
        ("DEBUG=1 python manage.py runworker mail", None),
        ("python manage.py runworker", None),
        ("python manage.py runworkers mail", None),
    ],
)
def test_which_lines_of_the_procfile_become_channel_workers(files, command, consumer):
    found = discover(files({**django(), "Procfile": f"x: {command}\n"}))
    assert found.consumers == ([] if consumer is None else [consumer])
    assert [program.name for program in found.programs] == ([] if consumer else ["x"])


def test_runworker_stays_where_there_is_no_asgi(files):
    contents = {name: text for name, text in django().items() if not name.endswith("asgi.py")}
    contents["mysite/wsgi.py"] = "application = 1"
    found = discover(files({**contents, "Procfile": "x: python manage.py runworker mail\n"}))
    assert (found.consumers, len(found.programs)) == ([], 1)


def test_several_apps_in_one_directory(files):
    found = discover(
        files(
            {
                "main.py": "app = FastAPI()\ninner = FastAPI()\napp.mount('/inner', inner)",
                "api.py": "app = FastAPI()",
                "tools/hooks.py": "async def app(scope, receive, send): ...",
                "old.py": "application = Flask(__name__)",
            }
        )
    )
    assert found.asgi == "main:app"
    assert found.others == ["api:app", "tools.hooks:app", "old:application"]


DJANGO_HEALTH = 'ROOT_URLCONF = "mysite.urls"\n'


@pytest.mark.parametrize(
    ("contents", "health"),
    [
        ({"main.py": "app = FastAPI()\n@app.get('/users')\ndef a(): ...\n"}, None),
        ({"main.py": "app = FastAPI()\n@app.get('/healthz')\nasync def a(): ...\n"}, "/healthz"),
        ({"main.py": "app = FastAPI()\n@router.get('/health')\nasync def a(): ...\n"}, None),
        ({"main.py": "app = Quart(__name__)\n@app.route('/-/ready')\ndef a(): ...\n"}, "/-/ready"),
        ({"main.py": "app = Starlette(routes=[Route('/up', up), Route('/ping', p)])"}, "/ping"),
        (
            {
                "manage.py": MANAGE,
                "mysite/settings.py": DJANGO_HEALTH,
                "mysite/asgi.py": "application = get_asgi_application()",
                "mysite/urls.py": "urlpatterns = [path('', index), path('health/', health)]",
            },
            "/health/",
        ),
        (
            {
                "manage.py": MANAGE,
                "mysite/settings.py": DJANGO_HEALTH,
                "mysite/asgi.py": "application = get_asgi_application()",
                "mysite/urls.py": "urlpatterns = [re_path(r'^ping$', ping)]",
            },
            "/ping",
        ),
        (
            {
                "manage.py": MANAGE,
                "mysite/settings.py": DJANGO_HEALTH,
                "mysite/asgi.py": "application = get_asgi_application()",
                "mysite/urls.py": "urlpatterns = [path('api/', include('api.urls'))]",
                "api/urls.py": "urlpatterns = [path('health/', health)]",
            },
            None,
        ),
    ],
)
def test_a_health_page(files, contents, health):
    assert discover(files(contents)).health == health


def test_several_django_projects(files):
    with pytest.raises(SeveralFoundError, match=r'"blog/manage.py" and "shop/manage.py"'):
        discover(files({"shop/manage.py": MANAGE, "blog/manage.py": MANAGE}))
