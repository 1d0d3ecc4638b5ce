"""A real headless Chromium for tests of pages: the system's own, through Playwright.

The fixtures `chromium` and `browser` are known to every test (conftest.py). While the browser is open, the main thread
has a running event loop: a test beside it in the same file does without `asyncio.run`.
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
    """What a page said and asked for.

    Attributes:
        errors: of its console and its scripts.
        requests: addresses, the page's own among them.
    """

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def foreign(self, *hosts: str) -> list[str]:
        """The requests that went anywhere but to a file or to these hosts (with their ports)."""
        return [
            url
            for url in self.requests
            if urlparse(url).scheme not in ("file", "data", "about", "blob") and urlparse(url).netloc not in hosts
        ]


def listen(page: Page) -> Heard:
    """Keep what a page says and asks for, from now on."""
    heard = Heard()
    page.on("console", lambda message: heard.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on("request", lambda request: heard.requests.append(request.url))
    return heard


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One headless Chromium for the tests of a file."""
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
    """A fresh window, without cookies or anything kept."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()
