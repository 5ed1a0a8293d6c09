"""Feedback wherever there is an answer, a search hit and an RFC: by mouse and by keyboard, and when it fails."""

from typing import Any

from playwright.sync_api import Locator, Page, expect

from assistant.errors import StoreUnavailable
from tests.browser import stub_data as data
from tests.browser.stub import Stub
from tests.browser.test_ask import ask
from tests.browser.test_rfc import draft
from tests.browser.test_search import search


def answered(page: Page, question: str = "What when the volume fills up?") -> Locator:
    ask(page, question)
    bar = page.get_by_role("group", name="Feedback on this answer")
    expect(bar).to_be_visible()
    return bar


def sent(stub: Stub) -> list[dict[str, Any]]:
    return [b for m, p, b in stub.requests if m == "POST" and p.endswith("/feedback") and b is not None]


def test_a_thumb_is_saved_at_once_and_shows_it(page: Page, stub: Stub) -> None:
    bar = answered(page)
    bar.get_by_role("button", name="Good").click()
    expect(bar.get_by_role("button", name="Good")).to_have_attribute("aria-pressed", "true")
    expect(bar.locator(".feedback-state")).to_have_text("Saved")
    expect(page.locator("#announcer")).to_have_text("Feedback saved")
    bar.get_by_role("button", name="Bad").click()
    expect(bar.get_by_role("button", name="Bad")).to_have_attribute("aria-pressed", "true")
    expect(bar.get_by_role("button", name="Good")).to_have_attribute("aria-pressed", "false")
    assert sent(stub) == [{"thumb": 1}, {"thumb": -1}]
    (path,) = stub.learning.opinions
    assert path.startswith("/api/v1/answers/")


def test_stars_comment_and_correction_by_keyboard_alone(page: Page, stub: Stub) -> None:
    bar = answered(page)
    keys = page.keyboard
    bar.get_by_role("button", name="Say more").focus()
    keys.press("Enter")
    expect(bar.get_by_role("radio", name="1 star")).to_be_focused()
    keys.press("Space")
    for _ in range(3):
        keys.press("ArrowRight")
    expect(bar.get_by_role("radio", name="4 stars")).to_be_checked()
    keys.press("Tab")
    keys.type("Short and right.")
    keys.press("Tab")
    edit = bar.get_by_label("How it should read")
    expect(edit).to_be_focused()
    expect(edit).to_have_value(data.ANSWER.strip())
    edit.fill("Delete, resize, rebalance [1].")
    keys.press("Tab")
    keys.press("Enter")
    expect(bar.locator(".feedback-state")).to_have_text("Saved · 4 of 5 stars · commented · corrected")
    expect(bar.get_by_role("button", name="Say more")).to_be_focused()
    assert sent(stub) == [
        {"stars": 4, "comment": "Short and right.", "edited_text": "Delete, resize, rebalance [1]."}
    ]


def test_what_was_said_stays_and_an_unchanged_text_is_no_correction(page: Page, stub: Stub) -> None:
    bar = answered(page)
    bar.get_by_role("button", name="Good").click()
    bar.get_by_role("button", name="Say more").click()
    bar.get_by_label("Comment").fill("Fine.")
    bar.get_by_role("button", name="Save").click()
    expect(bar.locator(".feedback-state")).to_have_text("Saved · commented")
    assert sent(stub)[-1] == {"thumb": 1, "comment": "Fine."}
    bar.get_by_role("button", name="Say more").click()
    expect(bar.get_by_label("Comment")).to_have_value("Fine.")
    page.keyboard.press("Escape")
    expect(bar.get_by_label("Comment")).to_have_count(0)
    expect(bar.get_by_role("button", name="Say more")).to_be_focused()


def test_nothing_said_is_not_sent(page: Page, stub: Stub) -> None:
    bar = answered(page)
    bar.get_by_role("button", name="Say more").click()
    bar.get_by_role("button", name="Save").click()
    expect(bar.get_by_role("alert")).to_have_text("Give a thumb, stars, a comment or a correction.")
    assert sent(stub) == []


def test_a_failure_is_shown_and_can_be_tried_again(page: Page, stub: Stub) -> None:
    bar = answered(page)
    stub.failures["/api/v1/answers"] = StoreUnavailable("Postgres does not answer.")
    bar.get_by_role("button", name="Good").click()
    expect(bar.get_by_role("alert")).to_contain_text("Postgres does not answer.")
    expect(bar.get_by_role("button", name="Good")).to_have_attribute("aria-pressed", "false")
    stub.failures.clear()
    bar.get_by_role("button", name="Try again").click()
    expect(bar.get_by_role("button", name="Good")).to_have_attribute("aria-pressed", "true")
    expect(bar.get_by_role("alert")).to_have_count(0)


def test_an_answer_without_sources_of_its_own_has_no_buttons(page: Page) -> None:
    page.get_by_role("combobox", name="Model").select_option("smollm2-135m-instruct")
    ask(page, "Hello?")
    expect(page.locator(".answer-foot")).to_be_visible()
    expect(page.locator(".feedback")).to_have_count(0)


def test_search_hits_are_rated_one_by_one(page: Page, stub: Stub) -> None:
    search(page, "volume")
    hit = page.locator(".hit").nth(1)
    hit.get_by_role("button", name="Bad").click()
    expect(hit.locator(".feedback-state")).to_have_text("Saved")
    expect(page.get_by_role("dialog")).to_be_hidden()
    hit.get_by_role("button", name="Say more").click()
    expect(hit.get_by_label("How it should read")).to_have_count(0)
    comment = hit.get_by_label("Comment")
    comment.press_sequentially("just junk")
    expect(comment).to_have_value("just junk")
    hit.get_by_role("button", name="Save").click()
    expect(hit.locator(".feedback-state")).to_have_text("Saved · commented")
    chunk = str(data.HITS[1].chunk_id)
    assert sent(stub)[-1] == {"thumb": -1, "comment": "just junk", "chunk_id": chunk}


def test_an_rfc_and_its_sections_are_rated_and_remembered(page: Page, stub: Stub) -> None:
    draft(page, "Cleanup of volumes")
    whole = page.get_by_role("group", name="Feedback on the whole draft")
    whole.get_by_role("button", name="Good").click()
    expect(whole.locator(".feedback-state")).to_have_text("Saved")
    section = page.get_by_role("group", name="Feedback on Summary")
    section.get_by_role("button", name="Say more").click()
    edit = section.get_by_label("How it should read")
    expect(edit).to_have_value(data.SECTIONS[0][1])
    edit.fill("It cleans up.")
    section.get_by_role("button", name="Save").click()
    expect(section.locator(".feedback-state")).to_have_text("Saved · corrected")
    assert sent(stub) == [{"thumb": 1}, {"edited_text": "It cleans up.", "section": "Summary"}]
    page.reload()
    expect(section.locator(".feedback-state")).to_have_text("Saved · corrected")
    expect(whole.get_by_role("button", name="Good")).to_have_attribute("aria-pressed", "true")


def test_hostile_names_are_only_text(page: Page) -> None:
    search(page, "hostile")
    hit = page.locator(".hit").first
    expect(hit.get_by_role("button", name="Say more")).to_have_attribute(
        "aria-label", f"Say more about {data.HOSTILE_TITLE}"
    )
