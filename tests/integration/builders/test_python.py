"""Real pushes of Python apps: every package manager, several shapes, and what goes wrong with each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from pip._internal.models.index import PyPI

from tests.box import ROOT, Box, Done, Repository

pytestmark = [pytest.mark.engine, pytest.mark.timeout(500)]
# Locks name the public index; pip knows it.
INDEX = ("https://index.invalid/", PyPI.url)
FILES = ("https://files.invalid/", f"https://{PyPI.file_storage_domain}/")
APPS = ROOT / "tests" / "fixtures" / "apps"


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box()
    try:
        yield box.start()
    finally:
        box.close()


def repository(box: Box, name: str, changes: Mapping[str, str] | None = None) -> Repository:
    """A fixture's files, some of them changed."""
    folder = APPS / f"python-{name}"
    files = {
        str(path.relative_to(folder)): path.read_text().replace(*INDEX).replace(*FILES)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return box.repository({**files, **(changes or {})})


@contextmanager
def pushed(box: Box, repo: Repository, app: str) -> Iterator[Done]:
    """An app that went live; its instances are gone afterwards."""
    done = box.push(repo, app, timeout=450)
    try:
        assert done.status == 0, done.err
        yield done
    finally:
        box.ssh("apps:destroy", app, "--force")


def refused(box: Box, repo: Repository, app: str) -> str:
    """What a push that must fail prints."""
    done = box.push(repo, app, timeout=450)
    box.ssh("apps:destroy", app, "--force")
    assert done.status != 0, done.err
    return done.err


@pytest.mark.parametrize(
    ("name", "answer", "reasons"),
    [
        (
            "poetry",
            "Hello from Poetry\n",
            (
                "Python 3.13, in the range of pyproject.toml tool.poetry.dependencies.python (^3.11)",
                "poetry.lock: exported by Poetry",
                "greeter/__init__.py makes a Flask application in create_app(), served by gunicorn, which is added",
            ),
        ),
        (
            "poetry-1",
            "Hello from Poetry 1\n",
            ("Python 3.11, in the range of pyproject.toml tool.poetry.dependencies.python (>=3.11,<3.13)",),
        ),
        (
            "pipenv",
            "Hello from Pipenv on 3.11\n",
            ("Python 3.11, from Pipfile requires.python_version", "Pipfile.lock: exported by Pipenv"),
        ),
        ("pdm", "Hello from pdm\n", ("pdm.lock: exported by pdm", "server.py makes a Starlette application named app")),
        (
            "src",
            "hello from src-greeter 0.1.0\n",
            (
                "pyproject.toml: its dependencies are installed by pip, then the app itself",
                "pyproject.toml: src-greeter is the only command it defines",
            ),
        ),
        (
            "fastapi",
            '{"hello":"FastAPI"}',
            ("backend/main.py makes a FastAPI application named api, served by uvicorn, which is added",),
        ),
        ("compiled", "compiled: markupsafe._speedups\n", ()),
        (
            "django-asgi",
            "ASGIRequest\n",
            ("mysite/asgi.py makes a Django application named application, served by uvicorn",),
        ),
    ],
)
def test_an_app_is_installed_and_answers(box: Box, name: str, answer: str, reasons: tuple[str, ...]) -> None:
    with pushed(box, repository(box, name), name) as done:
        for reason in reasons:
            assert reason in done.err
        assert box.get(name).text == answer


def test_uv_installs_what_is_locked_and_the_app_sees_the_edge(box: Box) -> None:
    with pushed(box, repository(box, "uv"), "uv") as done:
        assert "uv.lock: uv sync --locked installs it" in done.err
        assert "app/main.py makes a FastAPI application named app, served by uvicorn" in done.err
        assert json.loads(box.get("uv").text) == {"hello": "uv", "scheme": "http"}
        listed = box.ssh("run", "uv", "ls", "/opt/venv/lib/python3.13/site-packages").out
        assert "fastapi" in listed and "iniconfig" not in listed  # that is in a development group


def test_django_collects_static_files_and_migrates_in_the_release_task(box: Box) -> None:
    repo = repository(box, "django")
    box.ssh("apps:create", "django")
    box.ssh("config:set", "django", "SECRET_KEY=of-the-test")
    with pushed(box, repo, "django") as done:
        assert "STATIC_ROOT is set: manage.py collectstatic is run" in done.err
        assert "1 static file copied to '/app/staticfiles'" in done.err
        assert "Applying auth.0001_initial... OK" in done.err
        assert box.get("django").text == "Hello from Django, style at /static/style.css\n"
        assert box.get("django", "/static/style.css").text == "body { color: teal; }\n"


def test_a_collectstatic_that_fails_does_not_fail_the_build_and_can_be_left_out(box: Box) -> None:
    settings = (APPS / "python-django/mysite/settings.py").read_text()
    changed = {"mysite/settings.py": settings + "import os\nAPI_KEY = os.environ['API_KEY']\n"}
    box.ssh("apps:create", "keyed")
    box.ssh("config:set", "keyed", "SECRET_KEY=a", "API_KEY=b")
    repo = repository(box, "django", changed)
    with pushed(box, repo, "keyed") as done:
        assert "WARNING: collectstatic failed" in done.err
        assert "Hello from Django" in box.get("keyed").text
        box.ssh("config:set", "keyed", "DISABLE_COLLECTSTATIC=1")
        box.ssh("builds:set", "keyed", "build-env", "DISABLE_COLLECTSTATIC")
        repo.commit({"changed.txt": ""})
        done = box.push(repo, "keyed")
        assert "DISABLE_COLLECTSTATIC is set: no static files collected" in done.err


SMALL = {
    "setup": (
        {
            "setup.py": "from setuptools import setup\n\nsetup(name='old', version='1', py_modules=['hello'],"
            " install_requires=['flask>=3', 'gunicorn'])\n",
            "hello.py": "from flask import Flask\n\napp = Flask(__name__)\n\n@app.route('/')\ndef index():\n"
            "    return 'Hello from setup.py'\n",
        },
        "setup.py",
    ),
    "bottle": (
        {
            "requirements.txt": "bottle\nwaitress\n",
            "app.py": "from bottle import Bottle\n\napp = Bottle()\n\n@app.route('/')\ndef index():\n"
            "    return 'Hello from Bottle'\n",
        },
        "served by waitress",
    ),
    "quart": (
        {
            "requirements.txt": "quart\nhypercorn\n",
            "app.py": "from quart import Quart\n\napp = Quart(__name__)\n\n@app.route('/')\nasync def index():\n"
            "    return 'Hello from Quart'\n",
        },
        "served by hypercorn",
    ),
    "litestar": (
        {
            "requirements.txt": "litestar\ndaphne\n",
            "app.py": "from litestar import Litestar, get\n\n@get('/', sync_to_thread=False)\ndef index() -> str:\n"
            "    return 'Hello from Litestar'\n\napp = Litestar([index])\n",
        },
        "served by daphne",
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_servers_and_frameworks_that_requirements_name(box: Box, name: str) -> None:
    files, reason = SMALL[name]
    with pushed(box, box.repository(files), name) as done:
        assert reason in done.err
        assert f"Hello from {'setup.py' if name == 'setup' else name.title()}" in box.get(name).text


@pytest.mark.frameworks
def test_streamlit_listens_where_it_should(box: Box) -> None:
    with pushed(box, repository(box, "streamlit"), "streamlit") as done:
        assert "streamlit_app.py imports Streamlit: run by it" in done.err
        assert box.get("streamlit", "/_stcore/health").text == "ok"
        assert "<title>Streamlit</title>" in box.get("streamlit").text


@pytest.mark.frameworks
def test_gradio_listens_where_it_should(box: Box) -> None:
    with pushed(box, repository(box, "gradio"), "gradio") as done:
        assert "app.py imports Gradio: run with its address and port set" in done.err
        assert "Hello from Gradio" in box.get("gradio").text


def test_a_pinned_version_beats_the_default_and_a_virtual_environment_is_left_out(box: Box) -> None:
    files = {
        ".python-version": "3.11.9\n",
        "app.py": "import sys\n"
        + (APPS / "python-aptfile/main.py")
        .read_text()
        .replace(
            'subprocess.run(["file", "--brief", "/app/main.py"], capture_output=True, check=True).stdout',
            '(sys.version.split(".")[1] + str(os.path.exists("/app/venv"))).encode()',
        ),
        "venv/pyvenv.cfg": "home = /somewhere\n",
        "venv/lib/python3.8/site-packages/flask/__init__.py": "raise SystemExit\n",
    }
    with pushed(box, box.repository(files), "pinned") as done:
        assert "Python 3.11, from .python-version (3.11.9; the patch level is the distribution's)" in done.err
        assert "venv/ is a virtual environment: left out" in done.err
        assert box.get("pinned").text == "11False"


def test_packages_of_an_aptfile_are_there_when_the_app_runs(box: Box) -> None:
    with pushed(box, repository(box, "aptfile"), "aptfile") as done:
        assert "packages: file (Aptfile lines)" in done.err
        assert "Python script" in box.get("aptfile").text


def test_a_package_that_needs_a_library_gets_it(box: Box) -> None:
    files = {
        "requirements.txt": "psycopg\n",
        "main.py": "import psycopg.pq\n"
        + (APPS / "python-aptfile/main.py")
        .read_text()
        .replace(
            'subprocess.run(["file", "--brief", "/app/main.py"], capture_output=True, check=True).stdout',
            "str(psycopg.pq.version()).encode()",
        ),
    }
    with pushed(box, box.repository(files), "libpq") as done:
        assert "psycopg needs libpq5" in done.err
        assert int(box.get("libpq").text) >= 150000


def test_a_changed_line_installs_nothing_again(box: Box) -> None:
    repo = repository(box, "uv")
    with pushed(box, repo, "again"):
        repo.commit({"app/routes.py": (repo.path / "app/routes.py").read_text().replace('"uv"', '"again"')})
        done = box.push(repo, "again")
        assert done.status == 0, done.err
        steps = [line for line in done.err.splitlines() if "] RUN " in line or "] COPY " in line]
        assert [line for line in steps if not line.rstrip().endswith("CACHED")] == [
            line for line in steps if "COPY --chown=10001:10001 app/ /app/" in line
        ]
        assert json.loads(box.get("again").text)["hello"] == "again"


BAD_LOCKS = {
    "poetry": ("pyproject.toml", 'flask = "^3.0"', 'flask = "^3.0.1"', "poetry.lock does not fit pyproject.toml"),
    "uv": ("pyproject.toml", "fastapi>=0.115", "fastapi>=0.116", "uv.lock does not fit pyproject.toml"),
    "pdm": ("pyproject.toml", "starlette>=0.40", "starlette>=0.41", "pdm.lock does not fit pyproject.toml"),
    "pipenv": ("Pipfile", '">=3.0"', '">=3.0.1"', "Pipfile.lock does not fit the Pipfile"),
}


@pytest.mark.parametrize("name", BAD_LOCKS)
def test_a_lock_that_is_out_of_date_is_named_with_what_to_type(box: Box, name: str) -> None:
    path, old, new, hint = BAD_LOCKS[name]
    text = (APPS / f"python-{name}" / path).read_text()
    assert old in text
    printed = refused(box, repository(box, name, {path: text.replace(old, new)}), f"bad-{name}")
    assert f"{hint}: run `{name} lock`" in printed


@pytest.mark.parametrize(
    ("requirements", "hint"),
    [
        ("paasd-no-such-package-at-all", "There is no paasd-no-such-package-at-all for this version of Python"),
        ("flask==99.1", "There is no flask==99.1 for this version of Python"),
        (
            "flask==3.0.0\nwerkzeug<2",
            "The user requested werkzeug<2; flask 3.0.0 depends on Werkzeug>=3.0.0. Loosen one of them.",
        ),
    ],
)
def test_requirements_that_cannot_be_met_are_named(box: Box, requirements: str, hint: str) -> None:
    assert hint in refused(box, box.repository({"requirements.txt": requirements, "app.py": ""}), "unmet")


def test_a_version_that_cannot_be_had_is_refused_before_the_build(box: Box) -> None:
    printed = refused(box, box.repository({".python-version": "3.7", "app.py": ""}), "too-old")
    assert ".python-version asks for Python '3.7'. There are: 3.13, 3.14, 3.11" in printed
    assert "build.official_images" in printed and "Building" not in printed


def test_a_header_that_is_missing_asks_for_an_aptfile(box: Box) -> None:
    files = {
        "setup.py": "from setuptools import Extension, setup\n"
        "setup(name='x', version='1', ext_modules=[Extension('x', ['x.c'])], py_modules=[])\n",
        "x.c": "#include <no/such/header.h>\n",
        "app.py": "",
    }
    assert "The header no/such/header.h is missing" in refused(box, box.repository(files), "header")


def test_an_error_of_syntax_is_shown_when_the_app_does_not_start(box: Box) -> None:
    printed = refused(box, box.repository({"requirements.txt": "", "main.py": "def broken(:\n"}), "syntax")
    assert "SyntaxError" in printed and "main.py" in printed
