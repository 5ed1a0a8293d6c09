"""Chromium before the stub. Every page of every test is watched for what must never happen."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.chromium import chromium, find_chromium, serving
from tests.browser.stub import Stub, create_app

HERE = Path(__file__).parent
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
"""

expect.set_options(timeout=10_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)


# Per package, not per session: while it runs, Playwright's own event loop would disturb asynchronous tests.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium on PATH: install the Debian package `chromium` to test the page")
    with chromium(executable) as running:
        yield running


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def site(stub: Stub) -> Iterator[str]:
    with serving(create_app(stub)) as url:
        yield url
        stub.hold.clear()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(
        viewport={"width": 1200, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    context.add_init_script(WATCH)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, site: str) -> Iterator[Page]:
    """The page, opened. Afterwards: no script error, nothing asked of another host, nothing run or blocked."""
    page = context.new_page()
    errors: list[str] = []
    strangers: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((site, "blob:")) else strangers.append(r.url))
    page.goto(site)
    yield page
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("window.violations") == []
    assert errors == []
    assert strangers == []
