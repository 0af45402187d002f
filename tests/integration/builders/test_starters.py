"""Repositories in the style of those that people begin with elsewhere: Heroku's getting-started apps, Railway's
templates, Dokku's test apps. They are pushed as they are, without a setting."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box import Box

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
APPS = Path(__file__).parents[2] / "fixtures" / "apps"
ANSWERS = {
    "heroku-python": {"/": "Getting started with Python", "/static/hello.css": "#430098"},
    "heroku-nodejs": {"/": "Getting started with Node.js", "/stylesheets/main.css": "#430098"},
    "heroku-go": {"/": "Getting started with Go", "/static/main.css": "#430098"},
    "heroku-php": {"/": "Getting started with PHP", "/main.css": "#430098"},
    "railway-fastapi": {"/": "Welcome to FastAPI!"},
    "railway-flask": {"/": "Welcome to your Flask app"},
    "railway-express": {"/": "Welcome to your Express app"},
    "dokku-nodejs-express": {"/": "nodejs/express"},
    "dokku-python": {"/": "python"},
    "dokku-php": {"/": "<h3>php</h3>"},
    "dokku-static": {"/": "<h3>Static</h3>"},
}


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box()
    try:
        yield box.start()
    finally:
        box.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_it_deploys_without_a_change_to_it(box: Box, name: str) -> None:
    repository = box.repository()
    shutil.copytree(APPS / name, repository.path, dirs_exist_ok=True)  # modes of files, too
    repository.commit({})
    done = box.push(repository, name)
    try:
        assert done.status == 0, done.err
        for path, text in ANSWERS[name].items():
            assert text in box.get(name, _hashed(box, name, path)).text
    finally:
        box.ssh("apps:destroy", name, "--force")


def _hashed(box: Box, name: str, path: str) -> str:
    """WhiteNoise's name of a static file, as the page has it."""
    if not path.startswith("/static/hello"):
        return path
    return box.get(name).text.partition('href="')[2].partition('"')[0]
