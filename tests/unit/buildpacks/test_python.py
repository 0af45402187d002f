"""What the Python buildpack decides from files alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from paasd.build.buildpacks import Buildpacks
from paasd.build.plan import Plan, Settings
from paasd.errors import SourceRejected

ROOT = Path(__file__).parents[3] / "buildpacks"
DEBIAN = ("bookworm", "trixie", "sid")
GUNICORN = "gunicorn --bind 0.0.0.0:$PORT --access-logfile -"
UVICORN = "uvicorn --host 0.0.0.0 --port $PORT"
FLASK = "app = Flask(__name__)"
POETRY = '[tool.poetry.dependencies]\npython = "%s"\nflask = "*"\n'
PROJECT = '[project]\nname = "a"\nrequires-python = "%s"\ndependencies = ["flask"]\n'


class Repository:
    def __init__(self, files: dict[str, str]) -> None:
        self._files = files
        self.files = frozenset(files)

    def read(self, path: str) -> str | None:
        return self._files.get(path)


@pytest.fixture(scope="module")
def packs() -> Buildpacks:
    return Buildpacks(ROOT)


def plan(packs: Buildpacks, files: dict[str, str], settings: Settings | None = None, *, official: bool = False) -> Plan:
    return packs.plan(Repository(files), 5000, settings=settings, suites=DEBIAN, official=official)


def command(packs: Buildpacks, files: dict[str, str]) -> str | None:
    (process_type,) = plan(packs, files).process_types
    assert process_type.name == "web"
    return process_type.command


def dockerfile(packs: Buildpacks, made: Plan) -> str:
    bases = {base.partition("@")[0]: f"paasd/{base.replace('@', ':')}" for base in made.bases}
    return packs.render(made, bases, "app1", "trixie")["Dockerfile"]


@pytest.mark.parametrize(
    ("files", "version", "reason"),
    [
        ({}, "3.13", "Python 3.13, the default"),
        ({".python-version": "3.11\n"}, "3.11", "Python 3.11, from .python-version"),
        ({".python-version": "# ours\n3.11.9\n3.12\n"}, "3.11", "the patch level is the distribution's"),
        ({".python-version": "cpython-3.14.0"}, "3.14", ".python-version"),
        ({".python-version": ">=3.14"}, "3.14", "in the range of .python-version"),
        ({".python-version": "3"}, "3.13", "in the range of .python-version (==3.*)"),
        ({"runtime.txt": "python-3.11.9\n"}, "3.11", "from runtime.txt"),
        ({"runtime.txt": "python-3.14.x"}, "3.14", "from runtime.txt"),
        ({".tool-versions": "nodejs 20\npython 3.11.2\n"}, "3.11", "from .tool-versions"),
        ({".python-version": "3.14", "runtime.txt": "python-3.11"}, "3.14", "from .python-version"),
        ({"Pipfile": '[requires]\npython_version = "3.11"', "Pipfile.lock": "{}"}, "3.11", "Pipfile requires"),
        ({"pyproject.toml": PROJECT % ">=3.9"}, "3.13", "in the range of pyproject.toml requires-python (>=3.9)"),
        ({"pyproject.toml": PROJECT % ">=3.9,<3.13"}, "3.11", "requires-python"),
        ({"pyproject.toml": PROJECT % "~=3.11.4"}, "3.11", "requires-python"),
        ({"pyproject.toml": PROJECT % ">=3.14.0b1"}, "3.14", "requires-python"),
        ({"pyproject.toml": POETRY % "^3.11", "poetry.lock": ""}, "3.13", "tool.poetry.dependencies.python"),
        ({"pyproject.toml": POETRY % "~3.11", "poetry.lock": ""}, "3.11", "(~3.11)"),
        ({"pyproject.toml": POETRY % "3.11", "poetry.lock": ""}, "3.11", "(3.11)"),
        ({"pyproject.toml": POETRY % ">=3.8 <3.12", "poetry.lock": ""}, "3.11", "<3.12"),
        ({"pyproject.toml": POETRY % "2.7.* || ^3.14", "poetry.lock": ""}, "3.14", "||"),
        ({"pyproject.toml": POETRY % "*", "poetry.lock": ""}, "3.13", "(*)"),
        ({"setup.cfg": "[options]\npython_requires = >=3.9,!=3.13.*,<3.14", "setup.py": ""}, "3.11", "setup.cfg"),
        ({"setup.py": "setup(python_requires='<3.12')"}, "3.11", "setup.py python_requires"),
    ],
)  # fmt: skip
def test_the_version_follows_the_files(packs: Buildpacks, files: dict[str, str], version: str, reason: str) -> None:
    made = plan(packs, {"app.py": "", **files})
    assert made.versions == {"python": version}
    assert reason in made.reasons[0]
    assert made.bases[1] == f"python@{version}"


def test_a_setting_beats_every_file(packs: Buildpacks) -> None:
    made = plan(packs, {"app.py": "", ".python-version": "3.11"}, Settings(version="3.14"))
    assert made.reasons[0] == "Python 3.14, from the setting version"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({".python-version": "3.7"}, ".python-version asks for Python '3.7'. There are: 3.13, 3.14, 3.11"),
        ({"runtime.txt": "python-3.12.1"}, "runtime.txt asks for Python 'python-3.12.1'"),
        ({".python-version": "pypy3.9"}, "'pypy3.9', which is no version of CPython"),
        ({".python-version": "3.13\x1b[31m"}, r"'3.13\\x1b\[31m', which is no version"),
        ({"pyproject.toml": PROJECT % ">=3.12,<3.13"}, "requires-python asks for Python '>=3.12,<3.13'"),
        ({"pyproject.toml": PROJECT % ">=3.11 or so"}, "which is not a range of versions"),
        ({"pyproject.toml": PROJECT % ">=3.12", ".python-version": "3.11"}, "asks for Python 3.11, but"),
        ({"pyproject.toml": "project ="}, "pyproject.toml is not valid TOML"),
        ({"Pipfile.lock": "[", "Pipfile": ""}, "Pipfile.lock is not valid JSON"),
        ({"Pipfile": '[packages]\nflask = "*"'}, "there is a Pipfile, but no Pipfile.lock"),
        ({"pyproject.toml": POETRY % "^3.11"}, "there is no poetry.lock"),
        ({"uv.lock": ""}, "there is a uv.lock, but no pyproject.toml"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(packs: Buildpacks, files: dict[str, str], message: str) -> None:
    with pytest.raises(SourceRejected, match=message) as caught:
        plan(packs, {"app.py": "", **files})
    assert caught.value.hint


def test_other_versions_need_official_images(packs: Buildpacks) -> None:
    pinned = {"app.py": "", ".python-version": "3.7"}
    assert plan(packs, pinned, official=True).reasons[0] == "Python 3.7, from .python-version, with the official image"
    ranged = {"app.py": "", "pyproject.toml": PROJECT % ">=3.9,<3.11"}
    assert plan(packs, ranged, official=True).versions["python"] == "3.10"
    with pytest.raises(SourceRejected, match=r"There are: 3\.13, 3\.14, 3\.11, and with official images 3\.12"):
        plan(packs, {"app.py": "", "pyproject.toml": PROJECT % ">=3.99"}, official=True)


@pytest.mark.parametrize(
    ("files", "tool", "step"),
    [
        ({"requirements.txt": "flask"}, "build", "pip install -r requirements.txt"),
        ({"requirements/prod.txt": "flask"}, "build", "pip install -r requirements/prod.txt"),
        ({"pyproject.toml": PROJECT % ">=3", "uv.lock": ""}, "uv", "uv sync --locked --no-dev --no-install-project"),
        ({"pyproject.toml": POETRY % "^3.9", "poetry.lock": ""}, "poetry", "poetry export -f requirements.txt -o /tmp"),
        (
            {"pyproject.toml": POETRY % "^3.9", "poetry.lock": '[package.source]\ntype = "git"'},
            "poetry",
            "poetry export -f requirements.txt --without-hashes -o /tmp",
        ),
        ({"pyproject.toml": PROJECT % ">=3", "pdm.lock": ""}, "pdm", "pdm lock --check && pdm export --prod"),
        ({"Pipfile": "", "Pipfile.lock": "{}"}, "pipenv", "pipenv verify && pipenv requirements --hash"),
        ({"Pipfile": "", "Pipfile.lock": '{"default": {"a": {"git": "x"}}}'}, "pipenv", "pipenv requirements | sed"),
        ({"pyproject.toml": PROJECT % ">=3"}, "build", "pip install -r /run/paasd/dependencies.txt"),
    ],
)  # fmt: skip
def test_the_files_say_which_tool_installs(packs: Buildpacks, files: dict[str, str], tool: str, step: str) -> None:
    made = plan(packs, {"app.py": "", **files})
    assert made.bases[0] == f"python-{tool}@3.13"
    assert step in made.values["installs"][0]
    assert step.replace("'", "\\u0027") in dockerfile(packs, made)


def test_of_several_lists_of_dependencies_one_wins_and_says_so(packs: Buildpacks) -> None:
    made = plan(
        packs, {"app.py": "", "uv.lock": "", "pyproject.toml": PROJECT % ">=3", "requirements.txt": "", "setup.py": ""}
    )
    note = "uv.lock comes before requirements.txt; remove it, or set install-command, to use another"
    assert note in made.reasons


def test_dependencies_of_a_project_become_a_file(packs: Buildpacks) -> None:
    evil = "flask\\nRUN evil"
    files = {"app.py": "", "pyproject.toml": f'[project]\nname = "a"\ndependencies = ["{evil}", "django>=5"]'}
    made = plan(packs, files)
    rendered = packs.render(made, {"python-build": "b", "python": "r"}, "app1", "trixie")
    assert rendered["dependencies.txt"] == "flask\nRUN evil\ndjango>=5\n"
    assert "evil" not in rendered["Dockerfile"]


SYSTEM = '[build-system]\nrequires = ["x"]\n'


@pytest.mark.parametrize(
    ("files", "step"),
    [
        ({"pyproject.toml": PROJECT % ">=3"}, []),
        ({"pyproject.toml": PROJECT % ">=3" + SYSTEM}, []),
        ({"pyproject.toml": PROJECT % ">=3" + SYSTEM, "a/__init__.py": ""}, ["pip install --no-deps ."]),
        ({"pyproject.toml": PROJECT % ">=3" + SYSTEM, "src/a.py": ""}, ["pip install --no-deps ."]),
        ({"pyproject.toml": '[project]\nname = "a"\ndynamic = ["dependencies"]'}, ["pip install ."]),
        ({"pyproject.toml": POETRY % "^3" + SYSTEM, "poetry.lock": "", "src/a.py": ""}, ["pip install --no-deps ."]),
        ({"pyproject.toml": POETRY % "^3" + SYSTEM, "poetry.lock": ""}, []),
        ({"setup.py": ""}, ["pip install ."]),
    ],
)  # fmt: skip
def test_the_app_itself_is_installed_when_it_has_to_be(
    packs: Buildpacks, files: dict[str, str], step: list[str]
) -> None:
    made = plan(packs, {"app.py": "", **files})
    assert made.values["app_steps"] == step
    assert made.values["changes_code"] is False
    assert "COPY --chown=10001:10001 app/ /app/" in dockerfile(packs, made)


def test_a_workspace_of_uv_needs_its_code(packs: Buildpacks) -> None:
    lock = 'name = "a"\nsource = { virtual = "." }\nname = "b"\nsource = { editable = "libs/b" }\n'
    files = {"app.py": "", "pyproject.toml": PROJECT % ">=3", "uv.lock": lock}
    assert plan(packs, files).values["needs_code"] is True
    alone = {**files, "uv.lock": 'name = "a"\nsource = { virtual = "." }\n'}
    assert plan(packs, alone).values["needs_code"] is False


@pytest.mark.parametrize(
    ("requirements", "files", "expected"),
    [
        ("Django\ngunicorn", {"manage.py": "", "blog/wsgi.py": "", "a/b/wsgi.py": ""}, f"{GUNICORN} blog.wsgi"),
        ("django", {"manage.py": "", "blog/wsgi.py": "", "blog/asgi.py": ""}, f"{GUNICORN} blog.wsgi"),
        ("django\nuvicorn", {"manage.py": "", "b/wsgi.py": "", "b/asgi.py": ""}, f"{UVICORN} b.asgi:application"),
        ("daphne\nchannels", {"manage.py": "", "b/asgi.py": ""}, "daphne -b 0.0.0.0 -p $PORT b.asgi:application"),
        (
            "django",
            {"manage.py": 'setdefault("DJANGO_SETTINGS_MODULE", "z.settings.prod")', "a/wsgi.py": "", "z/wsgi.py": ""},
            f"{GUNICORN} z.wsgi",
        ),
        ("django", {"site/manage.py": "", "site/blog/wsgi.py": ""}, f"{GUNICORN} --chdir site blog.wsgi"),
        ("flask\ngunicorn>=2", {"app.py": "web = Flask(__name__)"}, f"{GUNICORN} app:web"),
        ("flask\nwaitress", {"app.py": FLASK}, "waitress-serve --listen=0.0.0.0:$PORT app:app"),
        ("flask", {"app.py": FLASK}, f"{GUNICORN} app:app"),
        ("flask", {"hello.py": "import flask\napp: flask.Flask = flask.Flask(__name__)"}, f"{GUNICORN} hello:app"),
        ("flask", {"app/__init__.py": "def create_app():\n    return Flask(x)"}, f"{GUNICORN} 'app:create_app()'"),
        ("flask", {"app.py": "def create_app(c: str = '', *, x=1):\n    Flask(x)"}, f"{GUNICORN} 'app:create_app()'"),
        ("flask", {"app.py": "def create_app(config):\n    Flask(x)"}, "python app.py"),
        ("flask", {"wsgi.py": "from x import create_app\napp = create_app('prod')"}, f"{GUNICORN} wsgi:app"),
        (
            "flask",
            {"site/__init__.py": "def create_app(config='x'):\n  return Flask(x)", "wsgi.py": "app = create_app()"},
            f"{GUNICORN} wsgi:app",
        ),
        ("dash", {"app.py": "app = Dash(__name__)\nserver = app.server\n"}, f"{GUNICORN} app:server"),
        ("fastapi\nuvicorn[x]", {"main.py": "api: A = FastAPI()"}, f"{UVICORN} main:api"),
        ("starlette\nuvicorn", {"server.py": "app=Starlette(x)"}, f"{UVICORN} server:app"),
        ("fastapi", {"app/main.py": "app = FastAPI()"}, f"{UVICORN} app.main:app"),
        ("fastapi", {"src/main.py": "app = FastAPI()"}, f"{UVICORN} --app-dir src main:app"),
        ("fastapi", {"src/pkg/api.py": "app = FastAPI()"}, f"{UVICORN} --app-dir src pkg.api:app"),
        (
            "fastapi",
            {"backend/main.py": "from db import x\napp = FastAPI()", "backend/db.py": ""},
            f"{UVICORN} --app-dir backend main:app",
        ),
        (
            "fastapi",
            {"backend/main.py": "import db\napp = FastAPI()", "backend/db.py": "", "backend/__init__.py": ""},
            f"{UVICORN} backend.main:app",
        ),
        ("fastapi", {"main.py": "def make_app() -> F:\n  return FastAPI()"}, f"{UVICORN} main:make_app --factory"),
        ("quart\nhypercorn", {"app.py": "app = Quart(__name__)"}, "hypercorn --bind 0.0.0.0:$PORT app:app"),
        ("fastapi", {"tests/main.py": "app = FastAPI()", "main.py": ""}, "python main.py"),
        (
            "streamlit",
            {"app.py": "import streamlit as st"},
            "streamlit run app.py --server.address 0.0.0.0 --server.port $PORT --server.headless true "
            "--browser.gatherUsageStats false",
        ),
        (
            "gradio",
            {"app.py": "import gradio as gr\n"},
            "GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=$PORT GRADIO_ANALYTICS_ENABLED=False python app.py",
        ),
        ("", {"server.py": "", "app.py": "", "main.py": ""}, "python main.py"),
        ("", {"src/main.py": ""}, "python src/main.py"),
        ("", {"tool/__main__.py": ""}, "python -m tool"),
    ],
)  # fmt: skip
def test_what_to_run_is_found(packs: Buildpacks, requirements: str, files: dict[str, str], expected: str) -> None:
    assert command(packs, {"requirements.txt": requirements, **files}) == expected


def test_an_installed_project_is_run_by_its_names(packs: Buildpacks) -> None:
    text = PROJECT % ">=3" + '[project.scripts]\nserve = "a.cli:main"\n' + SYSTEM
    assert command(packs, {"pyproject.toml": text, "src/a/cli.py": ""}) == "serve"
    assert command(packs, {"pyproject.toml": text, "src/a/main.py": FLASK}) == f"{GUNICORN} a.main:app"
    evil = PROJECT % ">=3" + '[project.scripts]\n"a;b" = "a.cli:main"\n' + SYSTEM
    with pytest.raises(SourceRejected, match="nothing says how to start it"):
        plan(packs, {"pyproject.toml": evil, "src/a/cli.py": ""})


def test_a_server_that_is_missing_is_added_to_the_build(packs: Buildpacks) -> None:
    made = plan(packs, {"requirements.txt": "flask", "app.py": FLASK})
    assert made.values["installs"] == ["pip install -r requirements.txt", "pip install 'gunicorn>=23,<27'"]
    assert "served by gunicorn, which is added" in made.reasons[-1]
    there = plan(packs, {"requirements.txt": "flask\ngunicorn", "app.py": FLASK})
    assert there.values["installs"] == ["pip install -r requirements.txt"]
    with_uv = plan(packs, {"pyproject.toml": PROJECT % ">=3", "uv.lock": "", "app.py": FLASK})
    assert with_uv.values["installs"][1] == "uv pip install 'gunicorn>=23,<27'"


def test_with_nothing_to_run_a_procfile_is_asked_for(packs: Buildpacks) -> None:
    with pytest.raises(SourceRejected, match="nothing says how to start it") as caught:
        plan(packs, {"requirements.txt": "flask", "lib/helper.py": ""})
    assert "Procfile" in caught.value.hint


def test_a_procfile_decides_what_runs(packs: Buildpacks) -> None:
    made = plan(packs, {"requirements.txt": "flask", "Procfile": ""}, Settings(process_types=("worker",)))
    assert made.process_types == ()
    assert made.reasons[1:] == ("requirements.txt: packages are installed again only when it changes",)


def test_settings_beat_what_the_files_say(packs: Buildpacks) -> None:
    settings = Settings(
        install_command="make deps", build_command="make all", start_command="./run", packages=("libvips42", "g++")
    )
    made = plan(packs, {"poetry.lock": "", "pyproject.toml": POETRY % "^3.11", "app.py": ""}, settings)
    assert (made.values["installs"], made.values["app_steps"]) == (["make deps"], ["make all"])
    assert made.process_types[0].command == "./run"
    assert made.packages == ("libvips42", "g++")
    text = dockerfile(packs, made)
    assert text.count("install-recommends libvips42 g++ ") == 2
    assert "COPY --from=build --chown=10001:10001 /app/ /app/" in text
    assert {"the setting build-command is run", "the setting start-command says what web runs"} <= set(made.reasons)
    with pytest.raises(SourceRejected, match="no name of a package"):
        plan(packs, {"app.py": ""}, Settings(packages=("a; rm -rf /",)))


def test_libraries_of_known_packages_are_installed(packs: Buildpacks) -> None:
    made = plan(packs, {"requirements.txt": "psycopg2\nOpenCV_Python\nmysqlclient", "app.py": ""})
    assert made.packages == ("libmariadb3", "libgl1", "libglib2.0-0", "libpq5")
    assert "libmariadb-dev" in made.values["build_packages"]
    assert "psycopg2 needs libpq5" in made.reasons
    assert plan(packs, {"requirements.txt": "psycopg[binary]\npsycopg-binary", "app.py": ""}).packages == ()


def test_django_collects_static_files_when_it_has_a_place_for_them(packs: Buildpacks) -> None:
    files = {"requirements.txt": "django", "manage.py": "", "a/wsgi.py": "", "a/settings.py": "STATIC_ROOT = x"}
    made = plan(packs, files)
    assert "python manage.py collectstatic --noinput" in made.values["app_steps"][0]
    assert "to have them served, add whitenoise" in " ".join(made.reasons)
    assert plan(packs, {**files, "a/settings.py": "STATIC_ROOT = None"}).values["app_steps"] == []
    folder = {f"web/{path}" if path != "requirements.txt" else path: text for path, text in files.items()}
    assert "python web/manage.py collectstatic" in plan(packs, folder).values["app_steps"][0]


def test_committed_virtual_environments_are_left_out(packs: Buildpacks) -> None:
    files = {"app.py": "", "venv/pyvenv.cfg": "", "venv/lib/x.py": "", "env/pyvenv.cfg": "", "src/env/code.py": ""}
    made = plan(packs, files)
    assert made.left_out == ("venv",)  # a folder of code is called env
    assert "venv/ is a virtual environment: left out" in made.reasons


def test_included_requirements_belong_to_the_dependencies(packs: Buildpacks) -> None:
    files = {
        "requirements.txt": "-r requirements/base.txt\n-c constraints.txt # pinned\n--requirement=gone.txt",
        "requirements/base.txt": "-r more.txt\nGunicorn \\\n  ; python_version > '3'",
        "requirements/more.txt": "-r base.txt\nflask @ https://x.invalid/flask.zip",
        "constraints.txt": "",
        "app.py": "app = Flask(x)",
    }
    made = plan(packs, files)
    assert made.values["files"] == {
        "/app/": ["app/constraints.txt", "app/requirements.txt"],
        "/app/requirements/": ["app/requirements/base.txt", "app/requirements/more.txt"],
    }
    assert made.values["needs_code"] is True  # gone.txt: pip says what is wrong with it
    assert made.process_types[0].command == f"{GUNICORN} app:app"


@pytest.mark.parametrize(
    ("line", "needs_code"),
    [
        ("flask", False),
        ("--index-url https://x.invalid/simple", False),
        ("requests @ git+https://x.invalid/r.git", False),
        ("-e .", True),
        (".", True),
        ("./lib", True),
        ("lib @ file:///app/lib", True),
        ("wheels/a.whl", True),
        ("-r ../outside.txt", True),
        ("-r 'a b.txt'", True),
    ],
)
def test_requirements_in_the_repository_need_its_code(packs: Buildpacks, line: str, needs_code: bool) -> None:
    assert plan(packs, {"requirements.txt": line, "app.py": ""}).values["needs_code"] is needs_code


def test_requirements_beside_may_be_included(packs: Buildpacks) -> None:
    files = {"requirements/prod.txt": "-r ../common.txt", "common.txt": "flask", "app.py": FLASK}
    made = plan(packs, files)
    assert made.values["needs_code"] is False
    assert made.values["files"]["/app/"] == ["app/common.txt"]


def test_other_languages_keep_their_repositories(packs: Buildpacks) -> None:
    assert plan(packs, {"index.html": "", "app.py": ""}).buildpack == "static"
    assert plan(packs, {"index.html": "", "pyproject.toml": "[tool.ruff]"}).buildpack == "static"
    assert plan(packs, {"index.html": "", "manage.py": "", "a/wsgi.py": ""}).buildpack == "python"


def test_the_dockerfile(packs: Buildpacks) -> None:
    made = plan(packs, {"requirements.txt": "flask\n-c c.txt", "c.txt": "", "Procfile": ""}, Settings(process_types=()))
    assert (made.bases, made.user) == (("python-build@3.13", "python@3.13"), "10001:10001")
    path = "/usr/local/bin:/usr/bin:/bin"
    assert (
        dockerfile(packs, made)
        == f"""\
FROM paasd/python-build:3.13 AS build
ENV PATH=/opt/venv/bin:/opt/tools/bin:{path} VIRTUAL_ENV=/opt/venv PYTHONUNBUFFERED=1
RUN ["python3.13", "-m", "venv", "/opt/venv"]
WORKDIR /app
COPY app/c.txt app/requirements.txt /app/
RUN --mount=type=bind,source=build.env,target=/run/paasd/build.env \\
    --mount=type=cache,id=paasd-app1-pip,target=/root/.cache/pip \\
    --mount=type=bind,source=pip.conf,target=/etc/pip.conf \\
    ["/bin/sh", "-ec", ". /run/paasd/build.env; pip install -r requirements.txt"]

FROM paasd/python:3.13 AS run
ENV PATH=/opt/venv/bin:{path} VIRTUAL_ENV=/opt/venv PYTHONUNBUFFERED=1 \\
    WEB_CONCURRENCY=2 FORWARDED_ALLOW_IPS=*
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY --chown=10001:10001 app/ /app/
USER 10001:10001
"""
    )


def test_planning_a_large_repository_is_quick(packs: Buildpacks) -> None:
    files = {f"pkg{n % 40}/sub{n % 7}/module{n}.py": "x = 1\n" for n in range(20_000)}
    files |= {"requirements.txt": "flask", "pkg1/app.py": FLASK}
    repository = Repository(files)
    taken = []
    for _ in range(3):
        started = time.process_time()
        packs.plan(repository, 5000, suites=DEBIAN)
        taken.append(time.process_time() - started)
    assert min(taken) < 0.5  # it takes 0.05 s; much more would mean that it reads files or sorts pairs of them
