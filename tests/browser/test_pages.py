"""The edge's own pages in a real browser, as visitors of an app see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.box import Box

pytestmark = pytest.mark.engine

_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Chromium resolves every name under localhost to the loopback address by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_QUIET)
        yield browser.new_page()
        browser.close()


def test_an_unknown_host_name_gets_a_page_that_says_so(box: Box, page: Page, tmp_path: Path) -> None:
    answer = page.goto(f"http://nobody.localhost:{box.http_port}/")
    assert answer and answer.status == 404
    expect(page.locator("h1")).to_have_text("No app at this address")
    page.screenshot(path=tmp_path / "unknown.png")
    assert (tmp_path / "unknown.png").stat().st_size > 1000


def test_the_page_of_an_app_without_instance_turns_into_the_app_by_itself(box: Box, page: Page) -> None:
    assert box.ssh("apps:create", "pages").status == 0
    answer = page.goto(f"http://pages.localhost:{box.http_port}/")
    assert answer and answer.status == 503
    expect(page.locator("h1")).to_have_text("Nothing is running here yet")
    pushed = box.push(box.repository({"index.html": "<h1>Now it is here</h1>"}), "pages")
    assert pushed.status == 0, pushed
    expect(page.locator("h1")).to_have_text("Now it is here", timeout=15_000)
    box.ssh("apps:destroy", "pages", "--force")
