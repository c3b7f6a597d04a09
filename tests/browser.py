"""A real browser for tests: the system's Chromium, headless, driven through chromedriver."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    # Nothing but the page that is asked for: no address outside this machine is ever contacted.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,820",
]


def require_browser() -> tuple[str, str]:
    """Return the paths of Chromium and chromedriver; skip where they are missing, fail under CI."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium and driver:
        return chromium, driver
    missing = "chromium and chromedriver are not installed"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


class Browser:
    """One browser with any number of tabs, each named by what `tab` returned."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._used_first = False
        self._console: list[str] = []

    def tab(self, url: str) -> str:
        """Open an address in a new tab, which becomes the current one, and return its handle."""
        if self._used_first:
            self.driver.switch_to.new_window("tab")
        self._used_first = True
        self.driver.get(url)
        return self.driver.current_window_handle

    def switch(self, handle: str) -> None:
        """Make a tab the current one."""
        self.driver.switch_to.window(handle)

    def js(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the current tab."""
        return self.driver.execute_script(f"return {expression}")

    def wait(self, condition: Callable[[], T], what: str, timeout: float = 20) -> T:
        """Wait until a condition holds in the current tab, and return its value."""
        wait = WebDriverWait(
            self.driver,
            timeout,
            poll_frequency=0.05,
            ignored_exceptions=[StaleElementReferenceException],
        )
        try:
            value: T = wait.until(lambda _: condition())
        except TimeoutException:
            said = "\n".join(self.console()) or "nothing"
            pytest.fail(f"in vain for {timeout:g} s: {what}\nThe console says: {said}")
        return value

    def wait_js(self, expression: str, timeout: float = 20) -> Any:
        """Wait until a JavaScript expression is true in the current tab, and return its value."""
        return self.wait(lambda: self.js(expression), f"waiting for {expression}", timeout)

    def fill(self, selector: str, text: str) -> None:
        """Type into a field as a person does."""
        self.driver.find_element("css selector", selector).send_keys(text)

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.driver.find_element("css selector", selector).click()

    def console(self) -> list[str]:
        """Return what the pages have written to the console so far."""
        new = self.driver.get_log("browser")  # which forgets what it has told
        self._console.extend(f"{entry['level']}: {entry['message']}" for entry in new)
        return list(self._console)

    def screenshot(self, path: Path) -> None:
        """Save the current tab as a PNG."""
        self.driver.save_screenshot(str(path))


@contextmanager
def open_browser(profile: Path, *flags: str) -> Iterator[Browser]:
    """Run a browser with a new, empty profile in this directory."""
    chromium, chromedriver = require_browser()
    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With both paths given, selenium neither looks for a browser nor downloads one.
    driver = webdriver.Chrome(options=options, service=Service(executable_path=chromedriver))
    try:
        driver.set_page_load_timeout(30)
        driver.set_script_timeout(30)
        yield Browser(driver)
    finally:
        driver.quit()
