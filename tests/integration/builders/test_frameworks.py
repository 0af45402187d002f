"""Web frameworks as their own starters make them, pushed and fetched. Those marked `frameworks` are pushed by
`scripts/test-frameworks`, not in every run: they fetch hundreds of packages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.box import Box

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]
APPS = Path(__file__).parents[2] / "fixtures" / "apps"


@dataclass(frozen=True)
class Framework:
    fixture: str
    reason: str
    """What the build log says about starting or serving it."""
    text: str
    """What the first page holds."""
    deep: int
    """Status of a path that is no file and no route."""


EVERY_RUN = [
    Framework("sveltekit", "SvelteKit, started with `node build`", "SvelteKit in release v1", 404),
    Framework("astro-static", "Astro builds a site in dist/", "Astro made one and two", 404),
    Framework("react-router", "the start script starts the app", "React Router in release v1", 404),
]
NOW_AND_THEN = [
    Framework("sveltekit-static", "SvelteKit builds a site in build/", "SvelteKit, prerendered", 200),
    Framework("astro", "Astro, started with `node ./dist/server/entry.mjs`", "Astro in release v1", 404),
    Framework("nuxt", "Nuxt, started with `node .output/server/index.mjs`", "Nuxt in release v1", 200),
    Framework("remix", "the start script starts the app", "Remix in release v1", 404),
    Framework("cra", "Create React App builds a site in build/", "<title>Create React App</title>", 200),
    Framework("next-start", "the start script starts the app", "Pages in release v1", 404),
]


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box()
    try:
        yield box.start()
    finally:
        box.close()


@pytest.mark.parametrize(
    "framework",
    [*EVERY_RUN, *(pytest.param(f, marks=pytest.mark.frameworks) for f in NOW_AND_THEN)],
    ids=lambda framework: framework.fixture,
)
def test_an_app_of_a_framework_goes_live(box: Box, framework: Framework) -> None:
    folder, app = APPS / f"nodejs-{framework.fixture}", framework.fixture
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = box.push(box.repository(files), app, timeout=800)
    try:
        assert done.status == 0, done.err
        assert framework.reason in done.err
        assert framework.text in box.get(app).text
        assert box.get(app, "/no/such/page").status == framework.deep
    finally:
        box.ssh("apps:destroy", app, "--force")
