"""A real browser on the gateway's page: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from real_parts import missing_part

PHONE = (375, 740)
DESKTOP = (1280, 900)
# What a page must never do: each is noted before any of its own scripts can run.
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(event.violatedDirective);
});
window.alert = () => window.violations.push("alert");
"""
# Seconds against hanging only.
_GUARD_S = 120.0


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium; without one the test ends with what is missing."""
    path = shutil.which("chromium")
    if path is None:
        missing_part("chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        # Containers have no user namespaces for its sandbox; it opens our own pages alone.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(context: BrowserContext, url: str) -> Page:
    """The page at `url`, with everything that it must not do noted in `window.violations`."""
    page = context.new_page()
    page.set_default_timeout(_GUARD_S * 1000)
    page.add_init_script(_WATCH)
    page.goto(url)
    return page


def violations(page: Page) -> Any:
    return page.evaluate("window.violations")


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


def ask(page: Page, question: str) -> None:
    """Ask, and wait for this question's answer."""
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#answer .asked", has_text=question).wait_for()


def search(page: Page, words: str) -> None:
    """Search facts, and wait for what was found."""
    page.get_by_label("Search").fill(words)
    with page.expect_response(lambda response: "/page/facts" in response.url):
        page.get_by_role("button", name="Search").click()
    page.locator("#results .listing").evaluate("(list, words) => list.dataset.subject === words", words)


def overflow(page: Page) -> int:
    """CSS pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
