"""A browser's own WebSocket outlives the processes of direct mode, compression included."""

import os
import signal
from pathlib import Path

import pytest

from tests.browser import open_browser, require_browser
from tests.running import running
from tests.system.conftest import DIRECT

APP = """
PAGE = b'''<!doctype html><link rel="icon" href="data:,"><script>
let sent = 0, back = [], opened = 0, closed = 0, stopped = false;
const padding = "the same words again and again, ".repeat(20);
const socket = new WebSocket(`ws://${location.host}/talk`);
socket.onopen = () => {
  opened += 1;
  setInterval(() => { if (!stopped) socket.send(`${++sent} ${padding}`); }, 5);
};
socket.onmessage = (event) => back.push(parseInt(event.data));
socket.onclose = () => { closed += 1; };
</script>'''


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["text"]})
"""


@pytest.mark.thorough
@pytest.mark.parametrize("protocol", ["websockets", "websockets-sansio"])
def test_a_browser_notices_no_deploy_and_no_kill(tmp_path: Path, protocol: str) -> None:
    require_browser()
    (tmp_path / "site_app.py").write_text(APP)
    config = f'{DIRECT}\n[interface.options]\nws = "{protocol}"\n'
    with running(tmp_path, config) as run, open_browser(tmp_path / "profile") as browser:
        run.wait_until_ready()
        browser.tab(run.url)
        browser.wait_js("opened")
        assert "permessage-deflate" in browser.js("socket.extensions")
        for _ in range(3):
            said = browser.wait_js("back.length")
            done = run.command("reload", timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr
            browser.wait_js(f"back.length > {said + 20}")
            slots = run.slots().items()
            ((slot, pid),) = [(name, one["pid"]) for name, one in slots if one["websockets_open"]]
            said = browser.js("back.length")
            os.kill(pid, signal.SIGKILL)
            browser.wait_js(f"back.length > {said + 20}")
            run.wait_for_successor(slot, pid)
        browser.js("(stopped = true)")
        browser.wait_js("back.at(-1) === sent")
        assert browser.js("[opened, closed]") == [1, 0]
        back, sent = browser.js("back"), browser.js("sent")
        assert back == sorted(set(back))  # once and in order
        assert sent - len(back) <= 3  # a kill costs at most the message in hand
