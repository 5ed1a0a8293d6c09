"""Models: what serves and why, what is missing until the next run, and the buttons that change it."""

import re

import pytest
from playwright.sync_api import Page, expect

from assistant.errors import Forbidden, StoreUnavailable
from tests.browser import stub_data as data
from tests.browser.stub import Stub
from tests.browser.stub_learning import Learning


@pytest.fixture
def stub() -> Stub:
    return Stub(learning=Learning().with_history())


def go(page: Page) -> None:
    page.get_by_role("link", name="Models").click()
    expect(page.locator(".model")).to_be_visible()


def test_the_roles_are_told_with_their_numbers(page: Page) -> None:
    go(page)
    expect(page.locator("[data-alias=champion]")).to_contain_text("answerer-3")
    expect(page.locator("[data-alias=challenger]")).to_contain_text("answerer-4")
    expect(page.locator("[data-alias=challenger]")).to_contain_text("10 % of the requests")
    expect(page.locator("[data-alias=previous]")).to_contain_text("answerer-2")
    rouge = page.locator("[data-metric='rouge l']")
    expect(rouge.locator("li")).to_have_count(3)
    expect(rouge).to_contain_text("0.231 (0.203 to 0.260), n = 40")
    plot = rouge.get_by_role("img")
    expect(plot).to_have_attribute("aria-label", re.compile("challenger: 0.231"))
    at = "e => [...e.querySelectorAll('circle')].map((c) => Number(c.getAttribute('cx')))"
    champion, challenger, previous = plot.evaluate(at)
    assert previous < champion < challenger


def test_the_decision_and_the_lineage_can_be_read(page: Page) -> None:
    go(page)
    decision = page.locator(".decision")
    expect(decision).to_contain_text("Decision on answerer-4 promote")
    expect(decision.locator(".reasons li")).to_have_count(2)
    expect(decision).to_contain_text("0.320 (0.250 to 0.390): better")
    page.get_by_text("Lineage of answerer-4").click()
    lineage = page.locator("[data-key*=challenger] .lineage")
    expect(lineage).to_contain_text("sha256:4f09c27b1")
    expect(lineage).to_contain_text("bdcd5f6")
    address = page.locator("[data-alias=challenger] a").get_attribute("href")
    assert address == "http://127.0.0.1:5000/#/models/answerer/versions/4"
    expect(page.get_by_role("link", name="MLflow", exact=True)).to_have_attribute("rel", "noopener")


def test_what_is_missing_until_the_next_run(page: Page, stub: Stub) -> None:
    go(page)
    learning = page.get_by_role("region", name="Learning")
    expect(learning).to_contain_text("7 of 10 new examples")
    expect(learning).to_contain_text("3 more start it; without them it starts")
    expect(learning.get_by_role("progressbar")).to_have_js_property("value", 7)
    expect(learning.get_by_role("img")).to_have_attribute("aria-label", re.compile("6 from 0.9 to 1"))
    stub.learning.new_examples = 0
    page.reload()
    expect(learning).to_contain_text("Rate an answer, a search result or an RFC")


def test_a_run_is_started_and_followed_step_by_step(page: Page, stub: Stub) -> None:
    stub.learning.hold.add("train")
    go(page)
    page.get_by_role("button", name="Start a run").click()
    run = page.locator(".run").first
    expect(run).to_have_attribute("data-status", "running")
    expect(page.get_by_role("button", name="Start a run")).to_be_disabled()
    expect(run.locator("[data-step=build]")).to_have_attribute("data-status", "done")
    expect(run.locator("[data-step=build]")).to_contain_text("train 204 · validation 22")
    expect(run.locator("[data-step=train]")).to_have_attribute("data-status", "running")
    stub.learning.hold.clear()
    expect(run).to_have_attribute("data-status", "done")
    expect(run.locator("[data-step=deploy]")).to_contain_text("answerer-4 gets 10 %")
    expect(page.get_by_role("button", name="Start a run")).to_be_enabled()
    expect(page.get_by_role("region", name="Learning")).to_contain_text("0 of 10")


def test_a_failed_run_says_why(page: Page) -> None:
    go(page)
    failed = page.locator(".run[data-status=failed]")
    failed.locator("summary").click()
    expect(failed).to_contain_text("The disk is full: 120 MB are needed")
    expect(failed).to_contain_text("taken up 3 times")


def test_promoting_is_asked_for_and_done(page: Page, stub: Stub) -> None:
    go(page)
    page.get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Promote answerer-4?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert "challenger" in stub.learning.live
    page.get_by_role("button", name="Promote").click()
    dialog.get_by_role("button", name="Promote").click()
    expect(page.locator("[data-alias=champion]")).to_contain_text("answerer-4")
    expect(page.locator("[data-alias=previous]")).to_contain_text("answerer-3")
    expect(page.get_by_role("button", name="Promote")).to_have_count(0)
    assert ("POST", {"adapter": "answerer-4"}) in [(m, b) for m, p, b in stub.requests if "promote" in p]


def test_rolling_back_is_asked_for_and_done(page: Page, stub: Stub) -> None:
    go(page)
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.locator("[data-alias=champion]")).to_contain_text("answerer-2")
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("dialog")).to_contain_text("Roll back to the base model?")
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.locator("[data-alias=champion]")).to_contain_text("Base model")


def test_who_may_not_is_told(page: Page, stub: Stub) -> None:
    stub.failures["/api/v1/learning/runs"] = Forbidden("Only members of the group `admins` may do this.")
    go(page)
    page.get_by_role("button", name="Start a run").click()
    expect(page.get_by_role("alert")).to_contain_text("Only members of the group `admins`")


def test_trouble_is_shown_and_passes(page: Page, stub: Stub) -> None:
    stub.failures["/api/v1/learning"] = StoreUnavailable("Postgres does not answer.")
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("alert")).to_contain_text("Postgres does not answer.")
    stub.failures.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".model")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_before_the_first_run_the_base_model_serves(page: Page, stub: Stub) -> None:
    stub.learning = Learning(new_examples=0)
    go(page)
    expect(page.locator("[data-alias=champion]")).to_contain_text("Base model")
    expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
    expect(page.get_by_role("region", name="Runs")).to_have_count(0)


def test_an_open_lineage_and_the_focus_outlive_a_refresh(page: Page) -> None:
    page.clock.install()
    page.reload()
    go(page)
    page.get_by_text("Lineage of answerer-3").click()
    page.get_by_role("button", name="Roll back").focus()
    with page.expect_response("**/learning/deployments"):
        page.clock.run_for(10_500)
    expect(page.get_by_role("button", name="Roll back")).to_be_focused()
    expect(page.locator("[data-key*=champion] .lineage")).to_be_visible()


def test_hostile_names_are_only_text(page: Page, stub: Stub) -> None:
    live = stub.learning.live
    live["champion"]["adapter"] = data.HOSTILE_TITLE
    live["champion"]["lineage"] = {"note": data.HOSTILE_TEXT}
    stub.learning.problems = {"x": data.HOSTILE_TEXT}
    go(page)
    expect(page.locator("[data-alias=champion] .alias-name")).to_have_text(data.HOSTILE_TITLE)
    assert page.locator(".model img, .model script").count() == 0


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_screen(page: Page, stub: Stub, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    stub.learning.live["challenger"]["adapter"] = "answerer-" + "long" * 30
    page.get_by_role("link", name="Models").last.click()
    expect(page.locator(".model")).to_be_visible()
    for details in page.locator("details").all():
        details.evaluate("e => { e.open = true }")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_the_keyboard_leads_there(page: Page) -> None:
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("g")
    page.keyboard.press("m")
    expect(page.locator(".model")).to_be_visible()
