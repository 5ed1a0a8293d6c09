import re
from typing import Any

from playwright.sync_api import Page, expect

from assistant.errors import NoBackend
from tests.browser import stub_data as data
from tests.browser.stub import Stub


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox", name="Question").fill(question)
    page.keyboard.press("Enter")


def chats(stub: Stub) -> list[dict[str, Any]]:
    return [body for _, path, body in stub.requests if path == "/v1/chat/completions" and body]


def test_an_answer_streams_and_is_then_replaced_by_its_rendered_form(page: Page, stub: Stub) -> None:
    stub.hold.add("chat")
    ask(page, "What when the volume fills up?")
    answer = page.locator(".answer-text")
    expect(answer).to_have_text(re.compile("^Start with the cheapest step and *$"))
    assert answer.evaluate("e => e.querySelector('ol')") is None
    stub.hold.clear()
    expect(answer.locator("ol > li")).to_have_count(3)
    expect(answer.locator("a.citation")).to_have_count(3)
    expect(page.locator(".answer-foot")).to_contain_text("Extractive")
    expect(page.locator(".answer-foot")).to_contain_text("smollm2-135m-instruct")
    expect(page.locator("#announcer")).to_have_text("Answer complete, 3 sources")


def test_a_citation_opens_the_exact_passage_and_leads_to_the_next(page: Page) -> None:
    ask(page, "What when the volume fills up?")
    page.get_by_role("link", name="Citation 2").click()
    drawer = page.get_by_role("dialog")
    expect(drawer.locator(".passage-exact")).to_have_text(data.RESIZE.text)
    expect(drawer).to_contain_text("Citation 2")
    expect(drawer.locator("mark")).to_contain_text("When the storage class allows expansion")
    page.keyboard.press("ArrowRight")
    expect(drawer.locator(".passage-exact")).to_have_text(data.REBALANCE.text)
    expect(drawer.get_by_role("button", name="Next citation")).to_be_disabled()
    drawer.get_by_role("button", name="Previous citation").click()
    expect(drawer.locator(".passage-exact")).to_have_text(data.RESIZE.text)
    drawer.get_by_role("button", name="Close").click()
    page.locator(".source").first.click()
    expect(drawer.locator(".passage-exact")).to_have_text(data.VOLUME.text)


def test_a_conversation_carries_its_turns(page: Page, stub: Stub) -> None:
    ask(page, "First?")
    expect(page.locator(".answer-foot")).to_have_count(1)
    ask(page, "Second?")
    expect(page.locator(".answer-foot")).to_have_count(2)
    assert chats(stub)[-1]["messages"] == [
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": data.ANSWER},
        {"role": "user", "content": "Second?"},
    ]
    page.get_by_role("button", name="New").click()
    expect(page.locator(".welcome")).to_be_visible()
    ask(page, "Third?")
    expect(page.locator(".answer-foot")).to_have_count(1)
    assert [m["content"] for m in chats(stub)[-1]["messages"]] == ["Third?"]


def test_an_answer_can_be_stopped(page: Page, stub: Stub) -> None:
    stub.hold.add("chat")
    ask(page, "What when the volume fills up?")
    expect(page.locator(".answer-text")).to_contain_text("Start with")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".answer")).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    stub.hold.clear()
    ask(page, "Again?")
    expect(page.locator(".answer-foot")).to_have_count(1)


def test_escape_stops_too(page: Page, stub: Stub) -> None:
    stub.hold.add("chat")
    ask(page, "What when the volume fills up?")
    expect(page.locator(".answer-text")).to_contain_text("Start with")
    page.keyboard.press("Escape")
    expect(page.locator(".answer")).to_contain_text("Stopped.")


def test_an_answer_goes_on_while_another_view_is_open(page: Page, stub: Stub) -> None:
    stub.hold.add("chat")
    ask(page, "What when the volume fills up?")
    expect(page.locator(".answer-text")).to_contain_text("Start with")
    page.get_by_role("link", name="Health").first.click()
    stub.hold.clear()
    page.get_by_role("link", name="Ask").click()
    expect(page.locator("a.citation")).to_have_count(3)


def test_no_evidence_is_labelled(page: Page) -> None:
    ask(page, "Something unknown?")
    expect(page.locator(".answer-text")).to_have_text(data.NOTHING)
    expect(page.locator(".answer-foot")).to_contain_text("Not grounded in your sources")
    expect(page.locator(".sources")).to_have_count(0)


def test_a_pinned_model_answers_without_sources(page: Page, stub: Stub) -> None:
    page.get_by_role("combobox", name="Model").select_option("smollm2-135m-instruct")
    ask(page, "Hello?")
    expect(page.locator(".answer-foot")).to_contain_text("smollm2-135m-instruct")
    assert chats(stub)[-1]["model"] == "smollm2-135m-instruct"
    assert page.locator(".answer-text").inner_text().strip() == data.ANSWER.strip()
    page.reload()
    expect(page.get_by_role("combobox", name="Model")).to_have_value("smollm2-135m-instruct")


def test_only_models_that_talk_are_offered(page: Page) -> None:
    options = page.get_by_role("combobox", name="Model").locator("option")
    expect(options).to_have_text(["assistant", "auto", "smollm2-135m-instruct", "broken"])


def test_an_answer_that_breaks_keeps_its_text_and_can_be_tried_again(page: Page, stub: Stub) -> None:
    page.get_by_role("combobox", name="Model").select_option("broken")
    ask(page, "Hello?")
    expect(page.get_by_role("alert")).to_contain_text("The model stopped answering.")
    expect(page.locator(".answer-text")).to_contain_text("Start with the cheapest step")
    page.get_by_role("combobox", name="Model").select_option("assistant")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("a.citation")).to_have_count(3)
    expect(page.locator(".answer")).to_have_count(1)
    assert len(chats(stub)[-1]["messages"]) == 1


def test_no_backend_lists_the_causes(page: Page, stub: Stub) -> None:
    causes = [{"backend": "local", "detail": "out of memory"}, {"backend": "remote", "detail": "timeout"}]
    stub.failures["/v1/chat"] = NoBackend.after("assistant", causes)
    ask(page, "Hello?")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("No backend could answer")
    expect(problem.get_by_role("listitem")).to_have_text(["local: out of memory", "remote: timeout"])
    expect(problem.locator("code")).to_have_text(re.compile(r"^[0-9a-f-]{36}$"))


def test_a_key_is_asked_for_when_one_is_needed(page: Page, stub: Stub) -> None:
    stub.required_key = "k-123"
    ask(page, "Hello?")
    page.get_by_label("API key").fill("k-123")
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("a.citation")).to_have_count(3)


def test_the_answer_can_be_copied(page: Page) -> None:
    ask(page, "Hello?")
    page.get_by_role("button", name="Copy the answer").click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == data.ANSWER


def test_shift_enter_breaks_the_line_and_nothing_is_not_sent(page: Page, stub: Stub) -> None:
    box = page.get_by_role("textbox", name="Question")
    box.press("Enter")
    assert chats(stub) == []
    box.fill("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    box.press("Enter")
    expect(page.locator(".answer-foot")).to_be_visible()
    assert chats(stub)[-1]["messages"][-1]["content"] == "one\ntwo"
