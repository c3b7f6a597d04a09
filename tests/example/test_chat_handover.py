"""Rooms in a real browser while a deploy replaces the code, and while workers are killed.

That nothing reconnects is seen from below the page: its `WebSocket` is wrapped before its script
runs, and tells of every one that was made, opened and closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import fetch
from tests.browser import Browser, open_browser, require_browser

from .site import Site, running_site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WATCH = """
window.sockets = [];
window.WebSocket = class extends window.WebSocket {
  constructor(...more) {
    super(...more);
    const life = { socket: this, opened: 0, closed: 0, failed: 0 };
    window.sockets.push(life);
    this.addEventListener("open", () => (life.opened += 1));
    this.addEventListener("close", () => (life.closed += 1));
    this.addEventListener("error", () => (life.failed += 1));
  }
};
"""
# Says something four times a second. How much was said so far is in `said`.
TALK = """
const who = arguments[0];
const input = document.getElementById("text");
window.said = 0;
window.talking = setInterval(() => {
  window.said += 1;
  input.value = `${who} ${window.said}`;
  document.getElementById("composer").requestSubmit();
}, 250);
"""
UNSENT = "document.querySelectorAll('.unsent').length"
TEXTS = "[...document.querySelectorAll('#messages .text')].map(text => text.textContent)"
# A tab that nobody looks at may otherwise act once a second only.
FLAGS = ("--disable-background-timer-throttling", "--disable-renderer-backgrounding")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_browser()
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with open_browser(tmp_path / "profile", *FLAGS) as browser:
        yield browser


class Room:
    """A room that is open in several tabs, all of which talk."""

    def __init__(self, browser: Browser, site: Site, slug: str, tabs: int) -> None:
        self.browser = browser
        self._tabs = {f"{slug}-{number}": self._open(site, slug) for number in range(tabs)}
        for who in self._each():
            browser.driver.execute_script(TALK, who)
        self.let_talk(5)

    def _open(self, site: Site, slug: str) -> str:
        tab = self.browser.tab("about:blank")
        script = {"source": WATCH}
        self.browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
        self.browser.driver.get(f"{site.url}/rooms/{slug}/")
        self.browser.wait_js("window.chat?.state === 'live'")
        self.browser.driver.execute_script("window.neverReloaded = true")
        return tab

    def _each(self) -> Iterator[str]:
        for who, tab in self._tabs.items():
            self.browser.switch(tab)
            yield who

    def js(self, expression: str) -> list[Any]:
        """Return the value of an expression in every tab."""
        return [self.browser.js(expression) for _ in self._each()]

    def wait_js(self, expression: str) -> None:
        """Wait until an expression is true in every tab."""
        for _ in self._each():
            self.browser.wait_js(expression)

    def _wait_for_texts(self, texts: list[str]) -> None:
        """Wait until the current tab shows these."""
        self.browser.wait(lambda: set(texts) <= set(self.browser.js(TEXTS)), f"waiting for {texts}")

    def let_talk(self, more: int) -> None:
        """Wait until every tab has said so much more, and has seen that it arrived."""
        for who in self._each():
            text = f"{who} {self.browser.js('said') + more}"
            self._wait_for_texts([text])

    def assert_nothing_reconnected(self) -> None:
        for _ in self._each():
            (life,) = self.browser.js(
                "sockets.map(({socket, opened, closed, failed}) => "
                "[opened, closed, failed, socket.readyState])"
            )
            assert life == [1, 0, 0, 1]
            assert self.browser.js("chat.connects") == 1
            assert self.browser.js("window.neverReloaded") is True

    def assert_everything_arrived_once(self, *, in_order: bool) -> None:
        self.js("clearInterval(talking)")
        said = {}
        for who in self._each():
            self.browser.wait_js(f"{UNSENT} === 0")
            said[who] = [f"{who} {number + 1}" for number in range(self.browser.js("said"))]
        for _ in self._each():
            last = [texts[-1] for texts in said.values()]
            self._wait_for_texts(last)
            seen = self.browser.js(TEXTS)
            for who, texts in said.items():
                arrived = [text for text in seen if text.startswith(f"{who} ")]
                assert (arrived if in_order else sorted(arrived, key=texts.index)) == texts
        assert self.browser.console() == []


def test_rooms_stay_connected_while_a_deploy_replaces_their_code(
    site: Site, browser: Browser
) -> None:
    room = Room(browser, site, "deploys", tabs=2)
    interface, workers, hub = site.pids("interface"), site.pids("web"), site.pids("hub")
    assert (len(interface), len(workers), len(hub)) == (1, 2, 1)

    (site.directory / "chat" / "__init__.py").write_text('VERSION = "2"\n')
    style = site.directory / "rooms" / "static" / "rooms" / "chat.css"
    style.write_text(style.read_text() + "/* version 2 */\n")
    template = site.directory / "rooms" / "templates" / "rooms" / "base.html"
    template.write_text(template.read_text().replace("kept running by", "kept up by"))
    result = site.chansup("reload")
    assert result.returncode == 0, result.stdout + result.stderr

    room.wait_js("chat.version === '2' && chat.moves > 0")
    room.let_talk(5)
    room.assert_nothing_reconnected()
    room.assert_everything_arrived_once(in_order=True)
    home = fetch.get(f"{site.url}/").text
    assert "kept up by chansup" in home
    assert "made by code version 2" in home
    assert (site.pids("interface"), site.pids("hub")) == (interface, hub)
    assert not set(site.pids("web")) & set(workers)


@pytest.mark.thorough
def test_rooms_stay_connected_while_workers_are_killed(site: Site, browser: Browser) -> None:
    room = Room(browser, site, "lobby", tabs=2)
    for _ in range(2):
        moves = room.js("chat.moves")
        served_by = room.js("chat.pid")
        browser.wait(lambda: len(site.pids("web")) == 2, "waiting for two workers")
        psutil.Process(served_by[0]).kill()
        for before, pid, _ in zip(moves, served_by, room._each(), strict=True):
            if pid == served_by[0]:
                browser.wait_js(f"chat.pid !== {pid} && chat.moves > {before}")
        room.let_talk(5)
    room.assert_nothing_reconnected()
    # What a worker had in hand is lost with it. The page sends that again: after later messages.
    room.assert_everything_arrived_once(in_order=False)
    assert "killed by SIGKILL" in site.output()


@pytest.mark.thorough
def test_nothing_is_lost_when_the_hub_is_replaced(site: Site, browser: Browser) -> None:
    room = Room(browser, site, "pictures", tabs=2)
    (hub,) = site.pids("hub")
    result = site.chansup("restart", "hub")
    assert result.returncode == 0, result.stdout + result.stderr
    room.let_talk(5)
    room.assert_nothing_reconnected()
    room.assert_everything_arrived_once(in_order=True)
    assert site.pids("hub") != [hub]
    assert f"hub.0[{hub}]: gone, exit code 0" in site.output()
