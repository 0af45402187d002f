"""Static sites: what is served, how long it may be kept, what never is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.box import Box

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
PAGE = "<title>page</title>" + "<p>words</p>" * 200
HIDDEN = (".env", ".git-credentials", ".vscode/settings.json", "package.json", "yarn.lock", "Staticfile", "paasd.toml")


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box()
    try:
        yield box.start()
    finally:
        box.close()


def files(**more: str) -> dict[str, str]:
    return {
        "index.html": PAGE,
        "about.html": "about",
        "404.html": "own missing page",
        **dict.fromkeys(HIDDEN, "SECRET"),
        "package.json": '{"name": "SECRET"}',
        "paasd.toml": "# SECRET\n",
        "app.3fa9c1d2.js": "1",
        "assets/index-DiwrgTda.js": "1",
        "assets/team-portrait.jpg": "1",
        "trip-20240131.jpg": "1",
        ".well-known/security.txt": "contact",
        **more,
    }


def test_a_site_with_a_404_page(box: Box) -> None:
    done = box.push(box.repository(files(Staticfile="# root of the repository\n")), "site")
    assert done.status == 0, done.all
    assert box.get("site", "/about").text == "about"
    missing = box.get("site", "/none")
    assert (missing.status, missing.text) == (404, "own missing page")
    assert box.get("site", "/.well-known/security.txt").text == "contact"
    for path in HIDDEN:
        hidden = box.get("site", f"/{path}")
        assert hidden.status == 404 and "SECRET" not in hidden.text, path
    paths = ("/app.3fa9c1d2.js", "/assets/index-DiwrgTda.js", "/assets/team-portrait.jpg", "/trip-20240131.jpg", "/")
    kept = {path: "immutable" in box.get("site", path).headers["Cache-Control"] for path in paths}
    assert kept == {
        "/app.3fa9c1d2.js": True,
        "/assets/index-DiwrgTda.js": True,
        "/assets/team-portrait.jpg": False,
        "/trip-20240131.jpg": False,
        "/": False,
    }


def test_pushstate_and_root_of_a_staticfile(box: Box) -> None:
    site = {f"web/{path}": text for path, text in files().items()} | {
        "Staticfile": "root: web\npushstate: enabled\nssi: x\n"
    }
    done = box.push(box.repository(site), "spa")
    assert done.status == 0 and "pushstate" in done.all and "'ssi' not followed" in done.all
    deep = box.get("spa", "/users/42")
    assert (deep.status, deep.text) == (200, PAGE) and deep.headers["Cache-Control"] == "no-cache"
    assert box.get("spa", "/assets/gone.js").status == 404
    for path in HIDDEN:
        assert "SECRET" not in box.get("spa", f"/{path}").text, path
