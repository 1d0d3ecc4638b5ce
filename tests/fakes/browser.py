"""A real headless Chromium for tests of pages: the system's own, through Playwright.

Every test can use the fixtures `chromium` and `browser` (conftest.py). While the browser is open, the main thread has a
running event loop, so tests in the same file cannot call `asyncio.run`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Heard:
    """The errors and requests of a page.

    Attributes:
        errors: errors on its console and in its scripts.
        requests: addresses that it requested, its own included.
    """

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def foreign(self, *hosts: str) -> list[str]:
        """Return the requests that went neither to a file nor to these hosts (with their ports)."""
        return [
            url
            for url in self.requests
            if urlparse(url).scheme not in ("file", "data", "about", "blob") and urlparse(url).netloc not in hosts
        ]


def listen(page: Page) -> Heard:
    """Record the errors and requests of a page from now on."""
    heard = Heard()
    page.on("console", lambda message: heard.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on("request", lambda request: heard.requests.append(request.url))
    return heard


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start one headless Chromium for the tests of a file."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium is installed ({', '.join(NAMES)})")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[BrowserContext]:
    """Open a fresh browser context without cookies or storage."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()
