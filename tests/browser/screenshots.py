"""Take the pictures of the documentation.

    python -m tests.browser.screenshots --url http://127.0.0.1:8000/ --out docs/images

Without `--url` the pictures show the stub. Against a real stack the knowledge must be ingested already.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Page

from tests.browser.chromium import chromium, find_chromium, serving
from tests.browser.stub import Stub, create_app, with_history

QUESTION = "What should I do when KubePersistentVolumeFillingUp fires?"
ANSWER_MS = 120_000
DRAFT_MS = 600_000
MOST_BYTES = 300_000


def ask(page: Page) -> None:
    page.get_by_role("textbox", name="Question").fill(QUESTION)
    page.keyboard.press("Enter")
    page.locator(".answer-foot").wait_for(timeout=ANSWER_MS)
    page.locator(".sources").wait_for()


def rfc(page: Page) -> None:
    page.get_by_role("link", name="Draft RFC").click()
    page.get_by_role("button", name="Fill in an example").click()
    page.get_by_role("button", name="Draft the RFC").click()
    page.get_by_role("button", name="Download .md").wait_for(timeout=DRAFT_MS)


def models(page: Page) -> None:
    page.get_by_role("link", name="Models").click()
    page.locator(".model").first.wait_for()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", help="the page of a running stack")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    executable = find_chromium()
    if executable is None:
        print("No Chromium on PATH: install the Debian package `chromium`.", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(serving(create_app(with_history(Stub()))))
        browser = stack.enter_context(chromium(executable))
        for name, go in {"ask": ask, "rfc": rfc, "models": models}.items():
            context = browser.new_context(viewport={"width": 1280, "height": 880}, color_scheme="light")
            page = context.new_page()
            page.goto(url)
            page.locator("#pill[data-state=good], #pill[data-state=middle], #pill[data-state=bad]").wait_for()
            go(page)
            page.evaluate("document.activeElement.blur()")
            path = arguments.out / f"{name}.png"
            page.screenshot(path=path, animations="disabled")
            context.close()
            size = path.stat().st_size
            print(f"{path} {size / 1000:.0f} kB")
            if size > MOST_BYTES:
                print(f"{path} is larger than {MOST_BYTES / 1000:.0f} kB.", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
