"""`make page`: a broker, a daemon, a gateway and a Chromium for two minutes, and a picture of the page.

python -m ops.demo.page_picture [FILE]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import FloatRect, Page, sync_playwright

from daemon.cli.options import Arch
from daemon.client import Client
from ops import up_token
from ops.models import model_environment
from ops.stack import PRINCIPALS, Stack

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "page.png"
WIDTH, HEIGHT = 1040, 900
# What is shown of drift, in CSS pixels: one row of readings.
_DRIFT_HEIGHT = 275
LARGEST_BYTES = 200_000
SETTINGS = {
    "LTE_DRIFT__CYCLE_S": "2",
    "LTE_DRIFT__LOOK_S": "1",
    "LTE_DRIFT__PROBES": "16",
    "LTE_REALIGN__AUTOMATIC": "false",
}
_SUBJECTS = ("Tarn Robotics", "Wexley Museum", "Port of Ostrava", "Harbour Line", "Orlina Ferries")
_RELATIONS = {
    "chief executive": ("Mira Okafor", "Aiko Brandt", "Jonas Weil", "Ines Falk", "Tamsin Vey"),
    "headquarters": ("Leiden", "Delft", "Ghent", "Aarhus", "Turku"),
}
_QUESTION = "Who is the chief executive of Quorvane?"
# Readings of each name that the lines should have.
_READINGS = 24
# Against hanging only.
_GUARD_S = 300.0


def main(picture: Path = PICTURE) -> None:
    settings = {**model_environment(Arch.QWEN2), **SETTINGS}
    with tempfile.TemporaryDirectory() as place:
        token_file = Path(place) / "token"
        up_token.make(token_file, Path(place) / PRINCIPALS)
        with Stack(Path(place) / "lte", settings=settings, token_file=token_file) as stack:
            stack.start_broker()
            stack.start_daemon()
            stack.start_gateway()
            _publish(stack)
            with _chromium() as page:
                _operate(page, stack.addresses.http, token_file.read_text("utf-8").strip())
                page.screenshot(path=picture, full_page=True, clip=_clip(page))
    size = picture.stat().st_size
    if size > LARGEST_BYTES:
        raise SystemExit(f"{picture} has {size} bytes, {LARGEST_BYTES} at most: make it smaller")
    print(picture)


def _publish(stack: Stack) -> None:
    """Facts with a history, until questions see them."""
    events: list[dict[str, Any]] = [
        {"subject": subject, "relation": relation, "target": target}
        for relation, targets in _RELATIONS.items()
        for subject, target in zip(_SUBJECTS, targets, strict=True)
    ]
    registered = {"subject": "Quorvane", "source": {"publisher": "register"}}
    chief = {**registered, "relation": "chief executive"}
    events += [
        {**registered, "relation": "headquarters", "target": "Tromsø"},
        {**chief, "target": "Ingrid Solheim", "revision": 1},
        {**chief, "target": "Pavel Norling", "revision": 2},
    ]
    with Client(stack.addresses.socket) as client:
        sent = [position for event in events for position in client.publish([event])]
        client.retrieve(_QUESTION, at_least=sent, timeout_s=_GUARD_S)


@contextmanager
def _chromium() -> Iterator[Page]:
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        browser.close()


def _operate(page: Page, url: str, token: str) -> None:
    """Sign in, let the readings come, ask, and look up a history."""
    page.goto(url)
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.locator("#drift").wait_for()
    end = time.monotonic() + _GUARD_S
    while f"{_READINGS} readings" not in page.request.get(f"{url}/page/drift").text():
        if time.monotonic() > end:
            raise SystemExit(f"no {_READINGS} readings of drift in {_GUARD_S:.0f} s")
        time.sleep(0.5)
    page.get_by_label("Question", exact=True).fill(_QUESTION)
    page.keyboard.press("Enter")
    page.locator(".answer-text").wait_for()
    page.get_by_label("Search").fill("Quorvane")
    with page.expect_response(lambda response: "/page/facts" in response.url):
        page.keyboard.press("Enter")
    newest = page.locator("#results li", has_text="Pavel Norling").first
    newest.get_by_role("link", name="History").click()
    page.locator("#results .timeline").wait_for()
    with page.expect_response(lambda response: "/page/drift" in response.url):
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")


def _clip(page: Page) -> FloatRect:
    """From the top of the page to the first readings of drift."""
    top = page.evaluate("document.getElementById('drift').getBoundingClientRect().top + window.scrollY")
    return {"x": 0, "y": 0, "width": WIDTH, "height": top + _DRIFT_HEIGHT}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
