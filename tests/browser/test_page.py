"""The frame: navigation, keyboard, theme, health, and that nothing retrieved can act."""

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser import stub_data as data
from tests.browser.stub import Stub
from tests.browser.test_ask import ask
from tests.browser.test_rfc import draft
from tests.browser.test_search import search


def test_health_names_every_dependency(page: Page) -> None:
    page.get_by_role("link", name="Health").first.click()
    expect(page.locator(".verdict")).to_contain_text("All systems work")
    expect(page.locator(".verdict")).to_contain_text("version 0.1.0 · up 1 d 2 h")
    expect(page.locator(".check-name").first).to_have_text("postgres")
    expect(page.locator(".check")).to_have_count(8)
    expect(page.locator(".figures")).to_contain_text("11,204")
    expect(page.locator("#pill")).to_have_attribute("data-state", "good")


def test_health_refreshes_by_itself_and_shows_trouble(page: Page, stub: Stub) -> None:
    page.clock.install()
    page.reload()
    page.get_by_role("link", name="Health").first.click()
    expect(page.locator(".verdict")).to_contain_text("All systems work")
    stub.health_status = "down"
    page.clock.run_for(5100)
    expect(page.locator(".verdict")).to_contain_text("Something is down")
    expect(page.locator(".check.bad")).to_contain_text("connection refused")
    expect(page.locator("#pill-text")).to_have_text("Trouble")


def test_a_server_that_is_gone_is_said_and_found_again(page: Page, context: BrowserContext) -> None:
    page.get_by_role("link", name="Health").first.click()
    expect(page.locator(".verdict")).to_be_visible()
    context.set_offline(True)
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    expect(page.get_by_role("alert")).to_contain_text("ai-assistant status")
    context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_the_chosen_theme_is_kept(browser: Browser, site: str) -> None:
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    page.goto(site)
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(250, 250, 251)"
    page.get_by_role("button", name="Use the dark theme").click()
    assert page.evaluate(ground) == "rgb(15, 16, 19)"
    page.reload()
    assert page.evaluate(ground) == "rgb(15, 16, 19)"
    expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()
    context.close()


def test_without_a_choice_the_system_decides(browser: Browser, site: str) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(site)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 16, 19)"
    context.close()


def test_everything_works_by_keyboard(page: Page) -> None:
    keys = page.keyboard
    expect(page.get_by_role("textbox", name="Question")).to_be_focused()
    keys.type("What when the volume fills up?")
    keys.press("Enter")
    expect(page.locator(".sources")).to_be_visible()
    page.locator("a.citation").first.focus()
    keys.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    keys.press("Escape")
    expect(page.locator("a.citation").first).to_be_focused()
    keys.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    keys.type("volume")
    keys.press("Enter")
    expect(page.locator(".hit")).to_have_count(len(data.HITS))
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    expect(page.locator(".hit-title").nth(1)).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_role("dialog").locator(".passage-exact")).to_have_text(data.RESIZE.text)
    keys.press("Escape")
    keys.press("k")
    keys.press("k")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.locator(".hit-title").first.focus()
    keys.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Keyboard shortcuts")
    keys.press("Escape")
    keys.press("g")
    keys.press("r")
    expect(page.get_by_label("Title")).to_be_focused()
    keys.type("By keyboard")
    keys.press("Tab")
    keys.type("No mouse was used.")
    keys.press("Control+Enter")
    expect(page.get_by_role("button", name="Download .md")).to_be_visible()
    keys.press("g")
    keys.press("h")
    expect(page.locator(".verdict")).to_be_visible()
    keys.press("g")
    keys.press("a")
    expect(page.get_by_role("textbox", name="Question")).to_be_focused()
    expect(page.locator(".exchange .sources")).to_be_visible()


def test_typing_in_a_field_triggers_no_shortcut(page: Page) -> None:
    page.keyboard.type("g h / ? t")
    expect(page.get_by_role("textbox", name="Question")).to_have_value("g h / ? t")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_hostile_search_results_are_only_text(page: Page) -> None:
    search(page, "hostile")
    first = page.locator(".hit").first
    expect(first.locator(".hit-title")).to_have_text(data.HOSTILE_TITLE)
    expect(first.locator("mark").first).to_have_text("<script>")
    first.locator(".hit-title").click()
    drawer = page.get_by_role("dialog")
    expect(drawer.locator(".passage-exact")).to_have_text(data.HOSTILE.text)
    expect(drawer.locator(".where")).to_have_text("javascript:window.hacked=1")
    assert drawer.locator("img, script, svg:not(.icon), a[href^='javascript']").count() == 0


def test_hostile_answers_are_only_text(page: Page) -> None:
    ask(page, "something hostile")
    answer = page.locator(".answer-text")
    expect(answer.locator("strong")).to_be_visible()
    expect(answer).to_contain_text("<script>window.hacked = 1</script>")
    assert answer.locator("img, script, svg, a:not(.citation)").count() == 0
    page.get_by_role("link", name="Citation 1").first.click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(data.HOSTILE_TITLE)


def test_a_hostile_title_of_a_draft_is_only_text(page: Page) -> None:
    draft(page, data.HOSTILE_TITLE)
    expect(page.get_by_role("button", name="Download .md")).to_be_visible()
    expect(page.get_by_role("heading", level=1).first).to_have_text(data.HOSTILE_TITLE)
    page.get_by_role("link", name="All drafts").click()
    expect(page.locator(".draft-title")).to_have_text(data.HOSTILE_TITLE)


def test_the_content_policy_is_what_stops_a_slip(page: Page) -> None:
    """The guard of the guards: if markup did get in, it could not run."""
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked=1\">')")
    page.wait_for_function("window.violations.length > 0")
    assert page.evaluate("window.hacked") is None
    page.evaluate("window.violations = []")


@pytest.mark.parametrize("width", [360, 390, 768, 1440])
def test_nothing_is_wider_than_the_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    ask(page, "something hostile " + "verylongword" * 30)
    expect(page.locator(".sources")).to_be_visible()
    assert page.evaluate(overflow) == 0
    search(page, "hostile")
    expect(page.locator(".hit").first).to_be_visible()
    assert page.evaluate(overflow) == 0
    assert page.locator(".hit").first.evaluate("e => e.getBoundingClientRect().right") <= width
    page.locator(".hit-title").first.click()
    drawer = page.get_by_role("dialog")
    expect(drawer.locator(".passage-exact")).to_be_visible()
    assert drawer.evaluate("e => e.scrollWidth - e.clientWidth") == 0
    page.keyboard.press("Escape")
    draft(page, "An RFC about " + "verylongword" * 8)
    expect(page.get_by_role("button", name="Download .md")).to_be_visible()
    assert page.evaluate(overflow) == 0
    page.get_by_role("link", name="Draft RFC").click()
    assert page.evaluate(overflow) == 0
    page.get_by_role("link", name="Health").last.click()
    expect(page.locator(".check").first).to_be_visible()
    assert page.evaluate(overflow) == 0
