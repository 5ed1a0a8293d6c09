from playwright.sync_api import Page, expect

from assistant.errors import StoreUnavailable
from tests.browser import stub_data as data
from tests.browser.stub import Stub


def search(page: Page, query: str) -> None:
    page.get_by_role("link", name="Search", exact=True).click()
    page.get_by_role("searchbox").fill(query)
    page.keyboard.press("Enter")


def searches(stub: Stub) -> list[dict[str, object] | None]:
    return [body for _, path, body in stub.requests if path == "/api/v1/search"]


def test_results_show_what_was_found_and_where(page: Page) -> None:
    search(page, "volume filling up")
    cards = page.locator(".hit")
    expect(cards).to_have_count(len(data.HITS))
    first = cards.first
    expect(first).to_contain_text("KubePersistentVolumeFillingUp")
    expect(first).to_contain_text("Mitigation › Data retention")
    expect(first.locator(".badge")).to_have_text("runbook")
    assert first.locator("mark").all_inner_texts() == ["Deleting data", "retention"]
    expect(page.locator(".results-head")).to_contain_text("5 passages in 38 ms")


def test_the_parts_of_a_score_are_shown_on_demand(page: Page) -> None:
    search(page, "volume filling up")
    last = page.locator(".hit").last
    expect(last.locator(".score-parts")).to_be_hidden()
    last.get_by_role("button", name="Score").click()
    expect(last.locator(".score-parts")).to_contain_text("0.507")
    expect(last.locator(".score-parts")).to_contain_text("not found")


def test_a_result_opens_its_passage_with_its_neighbours(page: Page) -> None:
    search(page, "volume filling up")
    page.get_by_role("link", name="KubePersistentVolumeFillingUp").first.click()
    drawer = page.get_by_role("dialog")
    expect(drawer.locator(".passage-exact")).to_have_text(data.VOLUME.text)
    expect(drawer.locator(".passage-around").first).to_have_text(data.BEFORE)
    expect(drawer.locator(".passage-around").last).to_have_text(data.AFTER)
    assert drawer.locator("mark").all_inner_texts() == ["Deleting data", "retention"]
    expect(drawer.get_by_role("link", name="Open the source")).to_have_attribute("href", str(data.VOLUME.url))
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()


def test_filters_and_mode_are_sent_and_live_in_the_address(page: Page, stub: Stub) -> None:
    search(page, "design")
    page.get_by_role("button", name="playbook").click()
    expect(page.locator(".hit")).to_have_count(1)
    with page.expect_response("**/api/v1/search"):
        page.get_by_role("button", name="Meaning").click()
    page.wait_for_url("**/#/search?q=design&mode=dense&type=playbook")
    expect(page.get_by_role("button", name="Meaning")).to_have_attribute("aria-pressed", "true")
    assert searches(stub)[-1] == {
        "query": "design",
        "limit": 10,
        "mode": "dense",
        "filters": {"source_type": ["playbook"]},
    }
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value("design")
    expect(page.locator(".hit")).to_have_count(1)
    page.go_back()
    page.go_back()
    expect(page.locator(".hit")).to_have_count(len(data.HITS))


def test_a_search_without_results_says_what_to_do(page: Page) -> None:
    search(page, "nothing")
    expect(page.locator(".results")).to_contain_text("No passage matches")
    page.get_by_role("button", name="Words").click()
    page.get_by_role("button", name="Clear the filters").click()
    expect(page.get_by_role("button", name="Hybrid")).to_have_attribute("aria-pressed", "true")


def test_an_example_is_a_first_search(page: Page) -> None:
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Search", exact=True).click()
    page.locator(".view-search .example").first.click()
    expect(page.locator(".hit").first).to_be_visible()


def test_a_failed_search_shows_the_problem_and_can_be_tried_again(page: Page, stub: Stub) -> None:
    stub.failures["/api/v1/search"] = StoreUnavailable("Qdrant does not answer.", hint="Look at Health.")
    search(page, "volume")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("Qdrant does not answer.")
    expect(problem).to_contain_text("Look at Health.")
    stub.failures.clear()
    problem.get_by_role("button", name="Try again").click()
    expect(page.locator(".hit")).to_have_count(len(data.HITS))
    expect(problem).to_be_hidden()


def test_a_passage_that_is_gone_says_so_in_the_drawer(page: Page) -> None:
    page.goto(page.url.split("#")[0] + "#passage-00000000-0000-0000-0000-0000000000ff")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("There is no such passage")


def test_only_the_last_of_two_searches_counts(page: Page, stub: Stub) -> None:
    stub.hold.add("search")
    search(page, "nothing")
    page.get_by_role("searchbox").fill("volume")
    page.keyboard.press("Enter")
    stub.hold.clear()
    expect(page.locator(".hit")).to_have_count(len(data.HITS))
    expect(page.get_by_role("searchbox")).to_have_value("volume")
