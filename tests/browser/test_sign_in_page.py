"""Signing in to an app that only its members see, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.box import Box

pytestmark = pytest.mark.engine

_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def club(box: Box) -> Iterator[str]:
    files = {"index.html": "<h1>Members' hall</h1>", "bar.html": "<h1>Members' bar</h1>"}
    assert box.push(box.repository(files), "hall").status == 0
    assert box.ssh("edge:set", "hall", "auth.members", "on").status == 0
    yield f"http://hall.localhost:{box.http_port}"
    box.ssh("apps:destroy", "hall", "--force")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_QUIET)
        yield browser.new_page()
        browser.close()


def test_from_the_page_to_the_app_and_out_again(box: Box, club: str, page: Page, tmp_path: Path) -> None:
    answer = page.goto(f"{club}/bar.html?a=b")
    assert answer and answer.status == 401
    expect(page.locator("h1")).to_have_text("Sign in")
    expect(page.locator("pre")).to_have_text(f"ssh -p {box.ssh_port} paasd@localhost apps:sign-in hall")
    page.screenshot(path=tmp_path / "sign-in.png")
    link = box.ssh("apps:sign-in", "hall").out.splitlines()[-1]
    page.goto(link)
    expect(page.locator("h1")).to_have_text("Members' bar")
    assert page.url == f"{club}/bar.html?a=b", "where the visitor wanted to go, without the token"
    assert page.evaluate("document.cookie") == "" and page.evaluate("document.referrer") == ""
    page.goto(f"{club}/")
    expect(page.locator("h1")).to_have_text("Members' hall")
    page.goto(f"{club}/.paasd/sign-out")
    expect(page.locator("h1")).to_have_text("Sign in")
    assert page.url == f"{club}/"
    page.goto(link)
    expect(page.get_by_text("That link was used")).to_be_visible()
    page.screenshot(path=tmp_path / "used.png")


def test_other_apps_cannot_sign_a_visitor_out(box: Box, club: str, page: Page) -> None:
    page.goto(box.ssh("apps:sign-in", "hall").out.splitlines()[-1])
    assert page.evaluate("fetch('/bar.html').then(answer => answer.status)") == 200
    out, elsewhere = f"{club}/.paasd/sign-out", f"http://nobody.localhost:{box.http_port}/"
    page.goto(elsewhere)
    page.evaluate(f"fetch('{out}', {{mode: 'no-cors', credentials: 'include'}}).then(() => 0)")
    answer = page.goto(f"{club}/")
    assert answer and answer.status == 200
    page.goto(elsewhere)
    page.evaluate(f"location.href = '{out}'")
    expect(page.locator("h1")).to_have_text("Members' hall")
