"""What visitors see where the relay answers by itself."""

from pathlib import Path

import pytest

from chansup.protocol.roster import LARGEST_ERROR_PAGE
from chansup.relay.interface.error_pages import HTML, TEXT, ErrorPages
from tests import fetch
from tests.running import running, write_app
from tests.system.conftest import DIRECT

BROWSER = [b"text/html,application/xhtml+xml,*/*;q=0.8"]


def test_a_browser_gets_a_page_and_a_program_one_line() -> None:
    pages = ErrorPages()
    kind, body = pages.body(503, "there is no <worker>", BROWSER)
    assert kind == HTML
    assert b"Service Unavailable" in body
    assert b"there is no &lt;worker&gt;" in body
    assert b"light dark" in body
    for accept in ([], [b"*/*"], [b"application/json"]):
        assert pages.body(503, "there is no worker", accept) == (TEXT, b"there is no worker\n")


def test_a_page_of_the_site_is_read_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = tmp_path / "503.html"
    page.write_text("<p>soon</p>")
    pages = ErrorPages()
    pages.use({"503": str(page)})
    assert pages.body(503, "", BROWSER)[1] == b"<p>soon</p>"
    assert b"Bad Gateway" in pages.body(502, "", BROWSER)[1]
    page.write_text("<p>very soon</p>")
    assert pages.body(503, "", BROWSER)[1] == b"<p>very soon</p>"
    page.unlink()  # with a release: what was read last stays
    assert pages.body(503, "", BROWSER)[1] == b"<p>very soon</p>"
    page.write_bytes(b"x" * (LARGEST_ERROR_PAGE + 1))
    assert pages.body(503, "", BROWSER)[1] == b"<p>very soon</p>"
    assert pages.body(503, "", BROWSER)[1] == b"<p>very soon</p>"
    assert len(caplog.records) == 1
    pages.use({})
    assert b"Service Unavailable" in pages.body(503, "", BROWSER)[1]


@pytest.mark.thorough
def test_a_site_without_workers_shows_its_page(tmp_path: Path) -> None:
    write_app(tmp_path)
    (tmp_path / "sorry.html").write_text("<h1>We are moving</h1>")
    config = DIRECT.replace("[interface]\n", '[interface]\nerror_pages = { 503 = "sorry.html" }\n')
    workers = '[workers.web]\nserves = ["http:/app"]\nworker_timeout = 0.2\n'
    with running(tmp_path, config + workers) as run:
        run.wait_until_ready()
        assert run.command("scale", "web=0").returncode == 0
        answer = fetch.get(run.url + "/app", headers={"Accept": "text/html"})
        assert (answer.status_code, answer.text) == (503, "<h1>We are moving</h1>")
        assert answer.headers["retry-after"]
        answer = fetch.get(run.url + "/elsewhere", headers={"Accept": "text/html"})
        assert answer.status_code == 404
        assert "<title>404 Not Found</title>" in answer.text
