"""The example as a person sees it: `chansup run`, and a real browser with several tabs."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests import fetch
from tests.browser import Browser, open_browser, require_browser
from tests.servers import redis

from .site import LOCAL, REDIS, Site, running_site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LIVE = "chat.state === 'live'"
UNSENT = "document.querySelectorAll('.unsent').length"
LOADED_THUMBNAIL = (
    "[...document.querySelectorAll('.thumbnail img')].find(image => image.naturalWidth > 0)"
)


both = pytest.mark.parametrize("site", [LOCAL, REDIS], ids=["hub", "redis"], indirect=True)
on_redis = pytest.mark.parametrize("site", [REDIS], ids=["redis"], indirect=True)


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    require_browser()
    config = getattr(request, "param", LOCAL)
    if config == REDIS:
        redis.require()
    with running_site(tmp_path_factory.mktemp("site"), config) as site:
        yield site


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with open_browser(tmp_path / "profile") as browser:
        yield browser


def enter(browser: Browser, site: Site, room: str) -> str:
    """Open a room in a new tab, and wait until it is connected."""
    tab = browser.tab(f"{site.url}/rooms/{room}/")
    browser.wait_js(LIVE)
    return tab


def say(browser: Browser, text: str) -> None:
    """Say something in the current tab, and wait until the server has it."""
    browser.fill("#text", f"{text}\n")
    wait_for_text(browser, text)
    browser.wait_js(f"{UNSENT} === 0")


def texts(browser: Browser) -> list[str]:
    found: list[str] = browser.js(
        "[...document.querySelectorAll('#messages .text')].map(text => text.textContent)"
    )
    return found


def wait_for_text(browser: Browser, text: str) -> None:
    browser.wait(lambda: text in texts(browser), f"waiting for {text!r}")


def test_pages_and_static_files_load(site: Site, browser: Browser) -> None:
    browser.tab(f"{site.url}/")
    browser.fill("#room-name", "Tea kitchen\n")
    browser.wait_js(f"location.pathname === '/rooms/tea-kitchen/' && window.chat && {LIVE}")
    assert browser.js("getComputedStyle(document.querySelector('.composer')).display") == "flex"
    assert "version 1" in browser.js("document.getElementById('served').textContent")
    assert browser.console() == []

    page = fetch.get(f"{site.url}/rooms/tea-kitchen/").text
    static = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(static) >= 3
    for path in static:
        response = fetch.get(site.url + path)
        assert response.status_code == 200, path
        assert "immutable" in response.headers["Cache-Control"], path


@both
def test_a_message_reaches_the_other_tab_as_it_was_written(site: Site, browser: Browser) -> None:
    one, other = enter(browser, site, "lobby"), enter(browser, site, "lobby")
    elsewhere = enter(browser, site, "deploys")
    browser.switch(one)
    text = "Hello <b>there</b> & <script>chat.hacked = true</script>"
    say(browser, text)
    browser.switch(other)
    wait_for_text(browser, text)
    assert not browser.js("chat.hacked")
    browser.switch(elsewhere)
    assert text not in texts(browser)
    enter(browser, site, "lobby")
    assert text in texts(browser)  # it was kept


@both
def test_a_picture_becomes_a_thumbnail_in_every_tab(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    Image.linear_gradient("L").resize((1600, 800)).save(photo)
    one, other = enter(browser, site, "pictures"), enter(browser, site, "pictures")
    browser.switch(one)
    browser.fill("#picture", str(photo))
    for tab in (one, other):
        browser.switch(tab)
        image = browser.wait_js(LOADED_THUMBNAIL)
        assert image.size["width"] == 480
    browser.driver.switch_to.new_window("tab")

    enter(browser, site, "pictures")
    text = tmp_path / "text.png"
    text.write_text("no picture at all")
    browser.fill("#picture", str(text))
    browser.wait_js("document.getElementById('notice').textContent.includes('not a JPEG')")


@pytest.mark.thorough
def test_a_thumbnail_outlives_the_worker_that_was_killed_over_it(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    enter(browser, site, "deploys")
    (worker,) = site.pids("thumbnails")
    process = psutil.Process(worker)
    process.suspend()
    photo = tmp_path / "photo.jpg"
    Image.linear_gradient("L").resize((1600, 800)).save(photo)
    browser.fill("#picture", str(photo))
    browser.wait_js("document.querySelector('.placeholder.busy') !== null")
    database = sqlite3.connect(site.directory / "data" / "chat.sqlite3", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")  # nobody else may write: it gets no further than that
    process.resume()
    browser.wait(
        lambda: "thumbnails: 0 waiting; 1 in hand" in site.chansup("status").stdout,
        "waiting for the worker to take the job",
    )
    process.kill()
    database.close()
    assert browser.wait_js(LOADED_THUMBNAIL).size["width"] == 480
    assert browser.js("chat.connects") == 1
    assert site.pids("thumbnails") != [worker]


@pytest.mark.thorough
def test_rooms_go_on_when_the_hub_was_killed(site: Site, browser: Browser) -> None:
    one, other = enter(browser, site, "lobby"), enter(browser, site, "lobby")
    (hub,) = site.pids("hub")
    psutil.Process(hub).kill()
    browser.wait(lambda: site.pids("hub") not in ([], [hub]), "waiting for another hub")
    for tab, text in ((one, "one is still here"), (other, "the other is, too")):
        browser.switch(tab)
        say(browser, text)
    for tab in (one, other):
        browser.switch(tab)
        wait_for_text(browser, "one is still here")
        wait_for_text(browser, "the other is, too")
        assert browser.js("chat.connects") == 1


@on_redis
@pytest.mark.thorough
def test_the_room_comes_back_when_redis_was_killed(site: Site, browser: Browser) -> None:
    enter(browser, site, "lobby")
    before = browser.js("chat.connects")
    (redis,) = site.processes("redis-server")
    redis.kill()
    browser.wait_js(f"chat.connects > {before} && {LIVE}", timeout=60)
    say(browser, "still here")
    assert browser.js("chat.lastClose") == 1013
