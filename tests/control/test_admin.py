import asyncio
import base64
import hashlib
import html.parser
import json
import re
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from chansup.supervisor.api.admin import Admin, AdminAddress, is_host_trusted
from chansup.supervisor.api.http import admin_server
from chansup.supervisor.api.paths import without_folders
from chansup.supervisor.errors import AddressError
from tests import fetch

from . import consumed
from .fake import FakeCommands
from .serving import serving, tcp_listener

pytestmark = pytest.mark.slow  # the interpreter makes no difference


@pytest.fixture
def fake():
    return FakeCommands()


@pytest.fixture
def server(fake):
    with serving(lambda one: admin_server(Admin(fake), [one]), tcp_listener()) as running:
        yield running


@pytest.fixture
def client(server):
    with server.client() as one:
        yield one


def test_an_address_that_is_taken_names_the_key(fake):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressError) as caught:
            asyncio.run(AdminAddress(Admin(fake), Path()).open(address))
    assert str(caught.value).startswith(f"[admin] bind: cannot listen on {address}: ")


def test_it_lives(client):
    assert (client.get("/livez").status_code, client.get("/livez").text) == (200, "ok\n")


def test_readiness_has_reasons(client, fake):
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["thumbnails: 0 of 2 processes ready"]
    fake.current = replaced(fake.current, ready=True, reasons=[])
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


def test_health_is_told_per_pool_and_slot(client):
    document = client.get("/healthz").json()
    pools = {pool["name"]: pool for pool in document["pools"]}
    assert pools["thumbnails"]["ready"] == 0
    slot = pools["thumbnails"]["slots"][0]
    assert (slot["name"], slot["state"], slot["last_exit"]) == (
        "thumbnails.0", "BACKOFF", "exit code 1",
    )  # fmt: skip
    assert document["rollout"]["outcome"] == "running"
    assert document["tasks"][0]["state"] == "succeeded"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/livez"])
def test_nothing_that_could_be_a_secret_is_told(client, path):
    text = client.get(path).text
    for secret in ("hunter2", "nothere", "/srv/site", "redis-server"):
        assert secret not in text


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/livez", "/nope"])
def test_every_answer_is_guarded(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_it_takes_no_commands(client, fake, method):
    answer = client.request(method, "/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert client.post("/reload").status_code == 404
    assert fake.called == []


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/livez"])
def test_head_is_get_without_a_body(client, path):
    answer = client.head(path)
    assert answer.content == b""
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        (b"127.0.0.1:9180", True), (b"localhost", True), (b"LOCALHOST:1", True),
        (b"[::1]:9180", True), (b"10.0.0.7", True), (b"app.localhost:1", True),
        (b"evil.example", False), (b"127.0.0.1.evil.example", False), (b"", False),
        (b"localhost.evil.example:9180", False), (b"[::1", True), (b"[evil.example]", False),
    ],
)  # fmt: skip
def test_over_loopback_the_host_must_be_one_that_rebinding_cannot_use(host, trusted):
    scope = {"server": ("127.0.0.1", 9180), "headers": [(b"host", host)]}
    assert is_host_trusted(scope) is trusted
    assert is_host_trusted({**scope, "server": ("10.0.0.7", 9180)})
    assert is_host_trusted({**scope, "server": None})


def test_an_untrusted_host_is_told_what_to_use(client):
    answer = client.get("/", headers={"host": "evil.example"})
    assert answer.status_code == 421
    assert "localhost" in answer.text


def test_the_page_shows_everything_and_escapes_it(client):
    page = client.get("/").text
    for word in ("interface.0", "killed by SIGKILL", "backoff", "under way", "migrate",
                 "0.0.0.0:8000", "thumbnails: 0 of 2 processes ready",
                 "7 waiting for a worker"):  # fmt: skip
        assert word in page
    assert "<b>" not in page
    assert "loading" not in page  # what a process says of itself is for the CLI alone
    assert "\x1b" not in page


def test_channels_and_the_hub_are_told_of(client, fake):
    fake.current = consumed.shown(fake.current)
    pools = {pool["name"]: pool for pool in client.get("/healthz").json()["pools"]}
    assert pools["hub"]["layer"]["messages"] == 13
    assert [one["name"] for one in pools["thumbnails"]["channels"]] == ["resize", "mails"]
    page = client.get("/").text
    for shown in ("13 messages waiting, the oldest for 3.4 s; 1.43 MiB of 256 MiB used",
                  "<th>resize", ">12 ms", ">240", ">3.4 s"):  # fmt: skip
        assert shown in page
    names = {"resize": "<b>x</b>", "mails": "mails"}
    pool = fake.current.pools[2]
    channels = [replaced(one, name=names[one.name]) for one in pool.channels]
    fake.current = replaced(fake.current, pools=[replaced(pool, channels=channels)])
    assert "<b>" not in client.get("/").text


def test_the_page_needs_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert "http-equiv" in answer.text
    assert "http-equiv" not in client.get("/?refresh=0").text
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "style=" not in answer.text
    assert re.findall(r'(?:src|href)="([^"]*)"', answer.text) == [
        "/healthz", "/metrics", "/?refresh=0",
    ]  # fmt: skip


def test_the_page_is_well_formed(client):
    class Balance(html.parser.HTMLParser):
        optional = frozenset({"meta", "th", "td", "tr", "progress"})

        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag, attributes):
            if tag not in self.optional:
                self.open.append(tag)

        def handle_endtag(self, tag):
            if tag not in self.optional:
                assert self.open.pop() == tag

    parser = Balance()
    parser.feed(client.get("/").text)
    assert parser.open == []


def test_a_site_with_nothing_in_it_has_a_page_too(client, fake):
    fake.current = replaced(
        fake.current, pools=[], tasks=[], rollout=None, addresses=[], reasons=[], ready=True
    )
    for path in ("/", "/healthz", "/metrics", "/readyz"):
        assert client.get(path).status_code == 200


def test_many_at_once(server):
    answers: list[int] = []

    def ask() -> None:
        with server.client() as client:
            for path in ("/metrics", "/", "/readyz", "/healthz"):
                answers.append(client.get(path).status_code)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(answers)) == [200, 503]
    assert len(answers) == 80


def replaced(status, **changes):
    import msgspec

    return msgspec.structs.replace(status, **changes)


def test_it_listens_on_several_sockets(fake):
    second = tcp_listener()
    port = second.getsockname()[1]
    with serving(lambda one: admin_server(Admin(fake), [one, second]), tcp_listener()):
        assert json.loads(fetch.get(f"http://127.0.0.1:{port}/healthz").text)["generation"] == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("unix:/srv/my site/run/web.sock", "unix:…/web.sock"),
        ("unix:/srv/run/web.sock: its socket file is gone", "unix:…/web.sock: its socket file is gone"),
        ("cannot open /etc/ssl/private/key.pem, or '/var/a/b'", "cannot open …/key.pem, or '…/b'"),
        ("127.0.0.1:8000: 1/2 ready, http://127.0.0.1/a/b", "127.0.0.1:8000: 1/2 ready, http://127.0.0.1/a/b"),
    ],
)  # fmt: skip
def test_folders_are_told_to_nobody(text: str, told: str) -> None:
    assert without_folders(text) == told


def test_no_page_tells_where_a_socket_lies(server, client, fake):
    place = "unix:/srv/secret place/web.sock"
    known = fake.status()
    fake.status = lambda: msgspec.structs.replace(
        known, addresses=[place], ready=False, reasons=[f"{place}: its socket file is gone"]
    )
    for path in ("/", "/healthz", "/readyz", "/metrics"):
        text = client.get(path).text
        assert "secret" not in text
    assert "web.sock: its socket file is gone" in client.get("/readyz").text
