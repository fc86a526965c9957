"""A headless Chromium for tests of pages: a page that was opened from a file, and what it asked for and complained about."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser's path; None where there is none."""
MISSING = " and ".join(
    [
        *(["Chromium (apt-get install chromium)"] if CHROMIUM is None else []),
        *(["playwright (pip install playwright)"] if find_spec("playwright") is None else []),
    ]
)
"""What a test of a page lacks here; empty when it can run."""


@dataclass
class Visit:
    """A page in the browser."""

    page: Any
    """Playwright's page."""
    requests: list[str] = field(default_factory=list)
    """Every address that it asked for, its own among them."""
    complaints: list[str] = field(default_factory=list)
    """Messages on the console that are warnings or errors, and exceptions."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def visit(browser: Any, path: Path, fragment: str = "", script: str = "", **context: Any) -> Iterator[Visit]:
    """Open a file in a window of its own. `script` runs before the page's; `context` is playwright's `new_context`."""
    window = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
    page = window.new_page()
    page.set_default_timeout(20_000)
    seen = Visit(page)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: _note(seen, message.type, message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    if script:
        page.add_init_script(script)
    page.goto(path.resolve().as_uri() + fragment)
    yield seen
    window.close()


def _note(seen: Visit, kind: str, text: str) -> None:
    if kind in ("warning", "error"):
        seen.complaints.append(text)
