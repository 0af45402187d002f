"""Plans and rendered files of the buildpacks, and the loader's strictness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paasd.build.buildpacks import Buildpacks
from paasd.build.plan import Plan
from paasd.build.recipes import BASE, reference
from paasd.errors import InvalidInput, NotFound, SourceRejected
from paasd.models import ProcessType

ROOT = Path(__file__).parents[2] / "buildpacks"
GUNICORN = "gunicorn --bind 0.0.0.0:$PORT"
BASES = {"python": "paasd/python:3.13", "python-build": "paasd/python-build:3.13", "static": "paasd/static:sid"}
DEBIAN = ("bookworm", "trixie", "sid")


class Repository:
    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    @property
    def files(self) -> frozenset[str]:
        return frozenset(self._files)

    def read(self, path: str) -> str | None:
        return self._files.get(path)


@pytest.fixture(scope="module")
def packs() -> Buildpacks:
    return Buildpacks(ROOT)


def plan(packs: Buildpacks, files: dict[str, str]) -> Plan:
    return packs.plan(Repository(files), 5000, suites=DEBIAN)


def command(packs: Buildpacks, files: dict[str, str]) -> str | None:
    (process_type,) = plan(packs, files).process_types
    assert process_type.name == "web"
    return process_type.command


def test_a_dockerfile_wins_unless_told_otherwise(packs: Buildpacks) -> None:
    files = {"Dockerfile": "FROM a", "requirements.txt": "", "Procfile": "web: x", "index.html": ""}
    assert plan(packs, files).buildpack == "dockerfile"
    assert packs.plan(Repository(files), 5000, wanted="static").buildpack == "static"
    with pytest.raises(NotFound, match="no buildpack is called ruby"):
        packs.plan(Repository(files), 5000, wanted="ruby")


def test_nothing_recognised_says_what_was_looked_for(packs: Buildpacks) -> None:
    with pytest.raises(SourceRejected) as caught:
        plan(packs, {"README.md": "", "src/a.c": "", "b\x1b.txt": ""})
    assert caught.value.detail == (
        "no buildpack recognises this repository; its root holds: README.md, b\\x1b.txt, src. Looked for: "
        "Dockerfile: Dockerfile; Python: requirements.txt or a Procfile beside *.py files; "
        "Node.js: package.json or a Procfile that runs node beside *.js files; "
        "Static site: index.html or public/index.html or a Staticfile with a line `root: <folder>`"
    )


@pytest.mark.parametrize(
    ("requirements", "files", "expected"),
    [
        ("Django\ngunicorn", {"manage.py": "", "blog/wsgi.py": "", "a/b/wsgi.py": ""}, f"{GUNICORN} blog.wsgi"),
        ("django", {"manage.py": "", "blog/wsgi.py": ""}, "python manage.py runserver --noreload 0.0.0.0:$PORT"),
        ("flask\ngunicorn>=2", {"app.py": "web = Flask(__name__)"}, f"{GUNICORN} app:web"),
        ("fastapi\nuvicorn[x]", {"main.py": "api: A = FastAPI()"}, "uvicorn main:api --host 0.0.0.0 --port $PORT"),
        ("starlette\nuvicorn", {"server.py": "app=Starlette(x)"}, "uvicorn server:app --host 0.0.0.0 --port $PORT"),
        ("flask", {"app.py": "app = Flask(__name__)"}, "python app.py"),
        ("", {"server.py": "", "app.py": "", "main.py": ""}, "python main.py"),
    ],
)  # fmt: skip
def test_python_finds_what_to_run(packs: Buildpacks, requirements: str, files: dict[str, str], expected: str) -> None:
    assert command(packs, {"requirements.txt": requirements, **files}) == expected


def test_python_with_nothing_to_run_asks_for_a_procfile(packs: Buildpacks) -> None:
    with pytest.raises(SourceRejected, match="nothing says how to start it") as caught:
        plan(packs, {"requirements.txt": "flask", "src/app.py": ""})
    assert "Procfile" in caught.value.hint


def test_a_procfile_decides_what_runs(packs: Buildpacks) -> None:
    made = plan(packs, {"requirements.txt": "flask", "Procfile": "web: x"})
    assert made.process_types == ()
    assert made.reasons[1:] == ("requirements.txt: packages are installed again only when it changes",)
    assert plan(packs, {"app.py": "", "Procfile": "web: x"}).values["requirements"] == []


def test_included_requirements_belong_to_the_dependencies(packs: Buildpacks) -> None:
    files = {
        "requirements.txt": "-r requirements/base.txt\n-c constraints.txt # pinned\n--requirement=gone.txt",
        "requirements/base.txt": "-r more.txt\nGunicorn \\\n  ; python_version > '3'",
        "requirements/more.txt": "-r base.txt\nflask @ https://x.invalid/flask.zip",
        "constraints.txt": "",
        "app.py": "app = Flask(x)",
    }
    made = plan(packs, files)
    assert made.values["requirements"] == [
        "constraints.txt",
        "requirements.txt",
        "requirements/base.txt",
        "requirements/more.txt",
    ]
    assert made.values["needs_code"] is True  # gone.txt: pip says what is wrong with it
    assert made.process_types[0].command == "gunicorn --bind 0.0.0.0:$PORT app:app"


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


def test_the_python_dockerfile(packs: Buildpacks) -> None:
    made = plan(packs, {"requirements.txt": "flask\n-c c.txt", "c.txt": "", "Procfile": "web: x"})
    assert (made.bases, made.user) == (("python-build@3.13", "python@3.13"), "10001:10001")
    assert packs.render(made, BASES, "app1", "trixie") == {
        "Dockerfile": """\
FROM paasd/python-build:3.13 AS build
RUN ["python3.13", "-m", "venv", "/opt/venv"]
WORKDIR /app
COPY app/c.txt /app/c.txt
COPY app/requirements.txt /app/requirements.txt
RUN --mount=type=cache,id=paasd-pip-app1,target=/root/.cache/pip \\
    --mount=type=bind,source=pip.conf,target=/etc/pip.conf \\
    /opt/venv/bin/pip install -r requirements.txt

FROM paasd/python:3.13 AS run
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY --chown=10001:10001 app/ /app/
USER 10001:10001
"""
    }


def test_the_python_dockerfile_without_requirements(packs: Buildpacks) -> None:
    text = packs.render(plan(packs, {"app.py": "", "Procfile": "web: x"}), BASES, "app1", "trixie")["Dockerfile"]
    assert "pip install" not in text
    assert text.startswith(
        'FROM paasd/python-build:3.13 AS build\nRUN ["python3.13", "-m", "venv", "/opt/venv"]\nWORKDIR /app\n\nFROM '
    )


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        ({"index.html": "", "public/index.html": ""}, ""),
        ({"public/index.html": ""}, "public/"),
        ({"Staticfile": "root: ./dist/site/ # built", "dist/site/a": "", "index.html": ""}, "dist/site/"),
        ({"Staticfile": "root: ."}, ""),
        ({"Staticfile": ""}, ""),
    ],
)
def test_static_finds_the_folder_to_serve(packs: Buildpacks, files: dict[str, str], folder: str) -> None:
    assert plan(packs, files).values["folder"] == folder


@pytest.mark.parametrize("root", ["../etc", "/etc/..", "a b", "$HOME", "missing", "-x"])
def test_static_refuses_a_root_outside_or_empty(packs: Buildpacks, root: str) -> None:
    with pytest.raises(SourceRejected, match="Staticfile"):
        plan(packs, {"Staticfile": f"root: {root}", "a/b": ""})


def test_the_static_files(packs: Buildpacks) -> None:
    files = packs.render(packs.plan(Repository({"public/index.html": ""}), 8123), BASES, "app1", "trixie")
    assert files["Dockerfile"] == (
        "FROM paasd/static:sid AS run\nCOPY nginx.conf /etc/nginx/paasd.conf\nCOPY app/public/ /srv/www/\n"
        "USER 10001:10001\nEXPOSE 8123\n"
    )
    assert "        listen 8123;\n" in files["nginx.conf"]


def test_a_dockerfile_is_taken_as_it_is(packs: Buildpacks) -> None:
    text = "FROM paasd/python:3.13 AS a\nfrom --platform=linux/amd64 paasd/base\nFROM debian\nFROM xpaasd/no\n"
    made = plan(packs, {"Dockerfile": text})
    assert made.in_repository and made.dockerfile == "Dockerfile" and made.user is None
    assert made.process_types == (ProcessType("web", None),)
    assert made.bases == ("python@3.13", "base")
    with pytest.raises(SourceRejected, match="frontend"):
        plan(packs, {"Dockerfile": "# syntax=evil/x\nFROM a"})


def test_bases_of_all_buildpacks_are_known(packs: Buildpacks) -> None:
    assert set(packs.recipes.names()) >= {BASE, "python", "python-build", "static"}


@pytest.mark.parametrize("name", ["python", "static", "dockerfile"])
def test_every_buildpack_has_its_example_and_readme(packs: Buildpacks, name: str) -> None:
    folder = ROOT / name
    assert (folder / "README.md").is_file()
    files = {
        str(path.relative_to(folder / "example")): path.read_text()
        for path in (folder / "example").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert plan(packs, files).buildpack == name


TOML = 'name = "x"\ntitle = "X"\ndescription = "d"\norder = 1\nlooks_for = ["y"]\n'
PLAN = "def plan(source, settings):\n    return None\n"


@pytest.mark.parametrize(
    ("toml", "code", "message"),
    [
        (TOML.replace("order = 1", 'order = "1"'), PLAN, "order must be given, as int"),
        (TOML.replace('"x"', '"z"'), PLAN, "name is 'z'"),
        (TOML + "extra = 1\n", PLAN, "unknown keys extra"),
        (TOML + '[bases."Bad Name"]\n', PLAN, "bases.Bad Name"),
        ("nonsense", PLAN, "buildpack.toml"),
        (TOML, "", "no function plan"),
        (TOML, None, "plan.py is missing"),
    ],
)
def test_a_wrong_buildpack_is_named(tmp_path: Path, toml: str, code: str | None, message: str) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "buildpack.toml").write_text(toml)
    if code is not None:
        (folder / "plan.py").write_text(code)
    with pytest.raises(InvalidInput, match=message):
        Buildpacks(tmp_path)


def test_a_new_language_is_only_a_new_folder(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (folder / "bases").mkdir(parents=True)
    (folder / "buildpack.toml").write_text(
        TOML + '[versions]\ndefault = "2.10"\n[versions.suites]\n"2.9" = "old"\n"2.10" = "new"\n"3.0" = "newer"\n'
        '[bases.x-run]\npackages = ["x{version}"]\n[bases.x-made]\nneeds = ["x-run", "base"]\n'
    )
    (folder / "plan.py").write_text(
        "from paasd.build.plan import Plan\n"
        "def plan(source, settings):\n"
        "    n = ' '.join(settings.versions)\n"
        "    return Plan('x', (), values={'n': n}, files=('more',)) if 'y' in source.files else None\n"
    )
    (folder / "Dockerfile.j2").write_text("FROM {{ bases['x-run'] }}\nRUN {{ n }} {{ port }} {{ app_id }}\n")
    (folder / "bases/x-made.j2").write_text(
        "FROM {{ bases['base'] }}\nCOPY --from={{ bases['x-run'] }} /{{ version }} /\n"
    )
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/more.j2").write_text("{{ n }}")
    (tmp_path / "shared/macros.j2").write_text((ROOT / "shared/macros.j2").read_text())
    packs = Buildpacks(tmp_path)

    made = packs.plan(Repository({"y": ""}), 5000, suites=("old", "newer", "new"))
    assert made.values["n"] == "2.10 3.0 2.9"
    assert packs.plan(Repository({"y": ""}), 5000, suites=("old", "newer")).values["n"] == "3.0 2.9"
    files = packs.render(made, {"x-run": "paasd/x-run:2.10"}, "id", "new")
    assert files == {"Dockerfile": "FROM paasd/x-run:2.10\nRUN 2.10 3.0 2.9 5000 id\n", "more": "2.10 3.0 2.9"}

    recipes, ref = packs.recipes, reference("x-made:2.10")
    assert recipes.names() == ["base", "x-run", "x-made"]
    assert recipes.suite(ref, "box") == "new"
    assert recipes.needs(ref, "box") == {"x-run": reference("x-run@2.10"), "base": reference("base@new")}
    made_from = {"x-run": "paasd/x-run:2.10", "base": "paasd/base:new"}
    assert recipes.dockerfile(ref, made_from, "new") == "FROM paasd/base:new\nCOPY --from=paasd/x-run:2.10 /2.10 /\n"
    installed = recipes.dockerfile(reference("x-run@2.10"), {"base": "paasd/base:new"}, "new")
    assert installed.startswith("FROM paasd/base:new\nRUN --mount=type=bind,source=apt.conf,")
    assert "id=paasd-apt-new,target=/var/cache/apt" in installed and "install-recommends x2.10 &&" in installed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "no base image is called 'none'"),
        ("python", "the base image python needs a version"),
        ("python@2.7", "python@2.7 cannot be made here"),
        ("python@", "invalid base image"),
        ("python@3.13 x", "invalid base image"),
    ],
)
def test_a_base_image_that_cannot_be_had_is_named(packs: Buildpacks, name: str, message: str) -> None:
    with pytest.raises((NotFound, InvalidInput), match=message):
        packs.recipes.get(reference(name))


def test_a_command_cannot_become_an_instruction(packs: Buildpacks) -> None:
    from paasd.build.templates import environment

    macros = (ROOT / "shared/macros.j2").read_text()
    text = '{% import "m" as m with context %}{{ m.run(command, {"/c": "pip"}, ["type=bind,source=a,target=/a"]) }}'
    command = 'make "x"\nRUN --network=host evil \u2028 é'
    rendered = environment({"m": macros, "t": text}).get_template("t").render(app_id="id", suite="s", command=command)
    *mounts, last = rendered.splitlines()
    assert [line.split("--mount=")[1] for line in mounts] == [
        "type=bind,source=build.env,target=/run/paasd/build.env \\",
        "type=cache,id=paasd-id-pip,target=/c \\",
        "type=bind,source=a,target=/a \\",
    ]
    assert json.loads(last) == ["/bin/sh", "-ec", f". /run/paasd/build.env; {command}"]
