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


def test_a_dockerfile_wins_unless_told_otherwise(packs: Buildpacks) -> None:
    files = {"Dockerfile": "FROM a", "requirements.txt": "", "Procfile": "web: x", "index.html": ""}
    assert plan(packs, files).buildpack == "dockerfile"
    assert packs.plan(Repository(files), 5000, wanted="static").buildpack == "static"
    with pytest.raises(NotFound, match="no buildpack is called cobol"):
        packs.plan(Repository(files), 5000, wanted="cobol")


def test_nothing_recognised_says_what_was_looked_for(packs: Buildpacks) -> None:
    with pytest.raises(SourceRejected) as caught:
        plan(packs, {"README.md": "", "src/a.c": "", "b\x1b.txt": ""})
    assert caught.value.detail.startswith(
        "no buildpack recognises this repository; its root holds: README.md, b\\x1b.txt, src. "
        "Looked for: Dockerfile: Dockerfile; "
    )
    assert "; Python: requirements.txt or pyproject.toml or " in caught.value.detail
    assert caught.value.detail.endswith("or a Staticfile with a line `root: <folder>`")


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


def test_official_images_stand_in_for_versions_the_distribution_has_not(packs: Buildpacks) -> None:
    recipes = packs.recipes.with_registry("registry.invalid/library/")
    old, build = reference("python@3.9"), reference("python-build@3.9")
    assert recipes.official_image(old, "bookworm") == "registry.invalid/library/python:3.9-slim-bookworm"
    assert recipes.official_image(reference("python@3.13"), "bookworm") == ""
    assert recipes.needs(old, "bookworm") == {}
    assert recipes.needs(build, "bookworm") == {"python": old}
    text = recipes.dockerfile(old, {}, "bookworm", ca_bundle=True)
    assert text.startswith("FROM registry.invalid/library/python:3.9-slim-bookworm\nUSER root\nCOPY ca.crt /etc/ssl/")
    assert "useradd --uid 10001" in text and "apt-get" not in text
    assert "COPY" not in recipes.dockerfile(old, {}, "bookworm")
    made_of_it = recipes.dockerfile(build, {"python": "paasd/python:3.9"}, "bookworm")
    assert "FROM paasd/python:3.9\n" in made_of_it and "python3.9" not in made_of_it and "build-essential" in made_of_it
    with pytest.raises(NotFound, match=r"python@3\.9 cannot be made here"):
        packs.recipes.get(old)


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
