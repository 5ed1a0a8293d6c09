from pathlib import Path

from playwright.sync_api import Page, expect

from assistant.errors import Unavailable
from tests.browser import stub_data as data
from tests.browser.stub import STAGES, Stub


def draft(page: Page, title: str = "Automatic cleanup") -> None:
    page.get_by_role("link", name="Draft RFC").click()
    page.get_by_label("Title").fill(title)
    page.get_by_label("Brief").fill("Volumes stay around.\nOn-call gets paged.")
    page.get_by_role("button", name="Draft the RFC").click()


def stages(page: Page) -> dict[str, str]:
    items = page.locator(".stage").all()
    return {str(i.get_attribute("data-stage")): str(i.get_attribute("data-status")) for i in items}


def test_a_draft_is_written_before_ones_eyes(page: Page, stub: Stub) -> None:
    stub.hold.add("section 1")
    draft(page)
    expect(page.locator(".arriving h2")).to_have_text(["Summary", "Motivation"])
    expect(page.locator("[data-stage=sections]")).to_have_attribute("data-status", "running")
    assert stages(page) == dict(zip(STAGES, ["done"] * 4 + ["running"] + ["waiting"] * 2, strict=True))
    expect(page.locator("[data-stage=questions] .stage-time")).to_have_text("590 ms")
    expect(page.locator("[data-stage=evidence]")).to_contain_text("18 passages")
    expect(page.get_by_role("heading", level=1)).to_have_text("Automatic cleanup")
    stub.hold.clear()
    paper = page.get_by_role("article", name="Document")
    expect(paper.get_by_role("link", name="Citation")).to_have_count(5)
    expect(paper.locator("mark.clarify")).to_contain_text("NEEDS CLARIFICATION")
    expect(paper.locator("table")).to_be_visible()
    assert set(stages(page).values()) == {"done"}
    expect(page.get_by_role("navigation", name="Contents").get_by_role("listitem")).to_have_count(
        len(data.SECTIONS)
    )
    paper.get_by_role("link", name="Citation 3").click()
    expect(page.get_by_role("dialog").locator(".passage-exact")).to_have_text(data.RETENTION.text)


def test_a_reload_in_the_middle_takes_the_draft_up_again(page: Page, stub: Stub) -> None:
    stub.hold.add("section 2")
    draft(page)
    expect(page.locator(".arriving")).to_have_count(3)
    page.reload()
    expect(page.locator(".arriving h2")).to_have_text(["Summary", "Motivation", "Goals"])
    expect(page.locator("[data-stage=sections]")).to_have_attribute("data-status", "running")
    stub.hold.clear()
    expect(page.get_by_role("button", name="Download .md")).to_be_visible()
    assert len(stub.rfcs) == 1


def test_a_broken_event_stream_resumes_after_the_last_event(page: Page, stub: Stub) -> None:
    stub.event_cuts = 2
    stub.hold.add("section 1")
    draft(page)
    expect(page.locator(".arriving")).to_have_count(2)
    assert stub.resumed_after == ["", "1", "2"]


def test_an_error_of_the_stream_is_not_one_of_the_draft(page: Page, stub: Stub) -> None:
    stub.stream_errors = 1
    stub.hold.add("section 1")
    draft(page)
    expect(page.locator(".arriving")).to_have_count(2)
    while len(stub.resumed_after) < 2:
        page.wait_for_timeout(20)
    expect(page.locator(".arriving")).to_have_count(2)
    expect(page.get_by_role("alert")).to_be_hidden()
    stub.hold.clear()
    expect(page.get_by_role("button", name="Download .md")).to_be_visible()


def test_a_draft_that_has_to_wait_says_so(page: Page, stub: Stub) -> None:
    stub.hold.add("retry")
    draft(page, "stumbles")
    expect(page.locator(".banner")).to_have_text(
        "Qdrant does not answer. The draft goes on by itself in about 5.0 s."
    )
    stub.hold.clear()
    expect(page.get_by_role("button", name="Download .md")).to_be_visible()
    expect(page.locator(".banner")).to_be_hidden()


def test_coming_back_from_another_view_replays_the_draft(page: Page, stub: Stub) -> None:
    stub.hold.add("section 2")
    draft(page)
    expect(page.locator(".arriving")).to_have_count(3)
    address = page.url
    page.get_by_role("link", name="Health").first.click()
    page.goto(address)
    expect(page.locator(".arriving")).to_have_count(3)
    stub.hold.clear()
    expect(page.get_by_role("button", name="Copy Markdown")).to_be_visible()


def test_the_document_can_be_saved_and_copied(page: Page, tmp_path: Path) -> None:
    draft(page, "Automatic cleanup: Ümlauts & more!")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download .md").click()
    assert download.value.suggested_filename == "automatic-cleanup-mlauts-more.md"
    download.value.save_as(tmp_path / "rfc.md")
    saved = (tmp_path / "rfc.md").read_text()
    assert saved.startswith("# Automatic cleanup: Ümlauts & more!")
    page.get_by_role("button", name="Copy Markdown").click()
    expect(page.get_by_role("button", name="Copy Markdown")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == saved


def test_a_draft_can_be_cancelled(page: Page, stub: Stub) -> None:
    stub.hold.add("section 1")
    draft(page)
    expect(page.locator(".arriving")).to_have_count(2)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".banner")).to_contain_text("Cancelled.")
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    assert [r.status for r in stub.rfcs.values()] == ["cancelled"]


def test_a_cancel_from_elsewhere_ends_the_watch(page: Page, stub: Stub) -> None:
    stub.hold.add("section 1")
    draft(page)
    expect(page.locator(".arriving")).to_have_count(2)
    next(iter(stub.rfcs.values())).status = "cancelled"
    expect(page.locator(".banner")).to_contain_text("Cancelled.")


def test_a_failed_draft_says_why(page: Page, stub: Stub) -> None:
    stub.hold.add("questions")
    draft(page, "fails")
    expect(page.locator("[data-stage=questions]")).to_have_attribute("data-status", "running")
    stub.hold.clear()
    expect(page.get_by_role("alert")).to_contain_text("Qdrant does not answer.")
    expect(page.get_by_role("alert")).to_contain_text("Look at Health.")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Qdrant does not answer.")


def test_earlier_drafts_are_listed_and_open(page: Page) -> None:
    page.get_by_role("link", name="Draft RFC").click()
    expect(page.locator(".earlier")).to_contain_text("Nothing drafted yet")
    draft(page)
    expect(page.get_by_role("button", name="Download .md")).to_be_visible()
    page.get_by_role("link", name="All drafts").click()
    expect(page.locator(".draft")).to_contain_text(["Automatic cleanup"])
    expect(page.get_by_label("Title")).to_have_value("")
    page.locator(".draft").click()
    expect(page.get_by_role("button", name="Download .md")).to_be_visible()


def test_a_refused_draft_keeps_what_was_typed(page: Page) -> None:
    draft(page, "x" * 121)
    expect(page.get_by_role("alert")).to_contain_text("longer than 120 characters")
    expect(page.get_by_label("Brief")).to_have_value("Volumes stay around.\nOn-call gets paged.")


def test_the_same_draft_sent_twice_has_one_key(page: Page, stub: Stub) -> None:
    keys: list[str] = []
    page.on("request", lambda r: keys.append(r.headers["idempotency-key"]) if r.method == "POST" else None)
    stub.failures["/api/v1/rfc"] = Unavailable("Postgres does not answer.")
    draft(page)
    page.locator(".form").get_by_role("button", name="Try again").click()
    expect(page.locator(".form").get_by_role("alert")).to_be_visible()
    stub.failures.clear()
    page.get_by_label("Title").fill("Another title")
    page.get_by_label("Brief").press("Control+Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Another title")
    assert len(keys) == 3
    assert keys[0] == keys[1] != keys[2]


def test_an_unknown_document_is_a_clear_problem(page: Page) -> None:
    page.goto(page.url.split("#")[0] + "#/rfc/nowhere")
    expect(page.get_by_role("alert")).to_contain_text("There is no such RFC.")
