"""Plans of the Go buildpack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paasd.build.buildpacks import Buildpacks
from paasd.build.go_env import host_go_env
from paasd.build.plan import Plan, Settings
from paasd.errors import SourceRejected
from tests.unit.test_buildpacks import ROOT, Repository

MAIN = "package main\n\nfunc main() {}\n"
BASES = {"go": "paasd/go:1.27", "go-run": "paasd/go-run:bookworm", "base": "paasd/base:bookworm"}


@pytest.fixture(scope="module")
def packs() -> Buildpacks:
    return Buildpacks(ROOT)


def plan(packs: Buildpacks, files: dict[str, str], **settings: Any) -> Plan:
    types = ("web",) if "web:" in files.get("Procfile", "") else None
    return packs.plan(Repository(files), 5000, wanted="go", settings=Settings(process_types=types, **settings))


def types(made: Plan) -> dict[str, str | None]:
    return {process.name: process.command for process in made.process_types}


@pytest.mark.parametrize(
    ("lines", "series"),
    [
        ("", "1.27"),
        ("go 1.22", "1.22"),
        ("go 1.24.3", "1.24"),
        ("go 1.21\n\ntoolchain go1.25.1", "1.25"),
        ("go 1.21\ntoolchain default", "1.21"),
        ("go 1.16", "1.27"),
        ("go 1.26rc1", "1.26"),
        ("// +heroku goVersion go1.23\ngo 1.21", "1.23"),
    ],
)
def test_go_mod_chooses_the_toolchain(packs: Buildpacks, lines: str, series: str) -> None:
    made = plan(packs, {"go.mod": f"module x.org/a\n{lines}\n", "main.go": MAIN})
    assert made.versions == {"go": series}
    assert made.bases == (f"go@{series}", "go-run")
    assert ("no file asks" in made.reasons[0]) is (lines == "")


def test_a_setting_beats_go_mod_and_a_workspace_names_a_version_too(packs: Buildpacks) -> None:
    files = {"go.work": "go 1.25.0\nuse ./svc\n", "svc/go.mod": "module x\ngo 1.21", "svc/main.go": MAIN}
    assert plan(packs, files).versions["go"] == "1.25"
    made = plan(packs, files, version="1.22.5")
    assert made.versions["go"] == "1.22"
    assert made.reasons[0].startswith("setting: 1.22.5")


@pytest.mark.parametrize(("version", "line"), [("", "go 1.99.1"), ("1.20", ""), ("latest", "")])
def test_a_toolchain_that_cannot_be_had_is_refused(packs: Buildpacks, version: str, line: str) -> None:
    with pytest.raises(SourceRejected) as caught:
        plan(packs, {"go.mod": f"module x\n{line}\n", "main.go": MAIN}, version=version)
    if line:
        assert caught.value.detail == "go.mod asks for Go 1.99 ('go 1.99.1'), which cannot be had here"
        assert caught.value.hint.startswith("There are: 1.27, 1.26,")


@pytest.mark.parametrize(
    ("files", "binaries", "web"),
    [
        ({"main.go": MAIN}, {"hello": ""}, "hello"),
        ({"a.go": "package lib", "cmd/one/x.go": MAIN}, {"one": "cmd/one"}, "one"),
        ({"cmd/web/main.go": MAIN, "cmd/job/main.go": MAIN}, {"web": "cmd/web", "job": "cmd/job"}, "web"),
        ({"cmd/server/main.go": MAIN, "cmd/b/main.go": MAIN}, {"server": "cmd/server", "b": "cmd/b"}, "server"),
        ({"cmd/hello/main.go": MAIN, "cmd/b/main.go": MAIN}, {"hello": "cmd/hello", "b": "cmd/b"}, "hello"),
        ({"main.go": MAIN, "cmd/b/main.go": MAIN, "tools/gen/main.go": MAIN}, {"hello": "", "b": "cmd/b"}, "hello"),
        ({"svc/api/main.go": MAIN, "examples/x/main.go": MAIN}, {"api": "svc/api"}, "api"),
        ({"main.go": f"//go:build ignore\n\n{MAIN}", "cmd/a/main.go": MAIN}, {"a": "cmd/a"}, "a"),
        ({"cmd/a/main.go": MAIN, "vendor/x/main.go": MAIN, "cmd/a/testdata/main.go": MAIN}, {"a": "cmd/a"}, "a"),
        ({"cmd/a/main.go": MAIN, "cmd/x y/main.go": MAIN, "cmd/$(id)/main.go": MAIN}, {"a": "cmd/a"}, "a"),
    ],
)  # fmt: skip
def test_main_packages_become_binaries(
    packs: Buildpacks, files: dict[str, str], binaries: dict[str, str], web: str
) -> None:
    made = plan(packs, {"go.mod": "module example.com/hello/v2\n", **files})
    assert {name: folder for folder, name in made.values["binaries"]} == binaries
    assert types(made)["web"] == web
    assert set(types(made)) == {"web", *(name for name in binaries if name != web)}


def test_several_programs_without_a_web_ask_for_a_procfile(packs: Buildpacks) -> None:
    files = {"go.mod": "module x", "cmd/b/main.go": MAIN, "cmd/a/main.go": MAIN}
    with pytest.raises(SourceRejected, match="nothing says which one is web: a, b"):
        plan(packs, files)
    made = plan(packs, files | {"Procfile": "web: b --port $PORT"})
    assert made.process_types == ()
    assert types(plan(packs, files, start_command="a -x")) == {"web": "a -x"}


def test_a_procfile_names_programs_in_odd_places(packs: Buildpacks) -> None:
    files = {"go.mod": "module x", "cmd/a/main.go": MAIN, "tools/gen/main.go": MAIN, "Procfile": "web: a\nx: bin/gen"}
    assert [name for _, name in plan(packs, files).values["binaries"]] == ["gen", "a"]


def test_heroku_s_install_line_chooses(packs: Buildpacks) -> None:
    files = {"cmd/a/main.go": MAIN, "svc/b/serve.go": MAIN, "svc/c/main.go": MAIN}
    for packages, names in (("./svc/b", {"b"}), ("./svc/...", {"b", "c"}), ("./...", {"a", "b", "c"})):
        made = plan(packs, files | {"go.mod": f"module x\n// +heroku install {packages}\n"}, start_command="b")
        assert {name for _, name in made.values["binaries"]} == names


def test_a_library_is_refused(packs: Buildpacks) -> None:
    with pytest.raises(SourceRejected, match="no program was found"):
        plan(packs, {"go.mod": "module x", "a.go": "package a", "a_test.go": MAIN})


def test_plain_files_without_go_mod(packs: Buildpacks) -> None:
    made = plan(packs, {"server.go": MAIN})
    assert made.values["commands"] == ["go mod init app", "go build -ldflags='-s -w' -o bin/app ."]
    with pytest.raises(SourceRejected, match=r"main.go imports 'github.com/x/y', and there is no go.mod"):
        plan(packs, {"main.go": 'package main\nimport (\n\t"fmt"\n\ty "github.com/x/y"\n)\n'})
    assert packs.plan(Repository({"lib.go": "package lib", "index.html": ""}), 5000).buildpack == "static"


def test_cgo_needs_the_larger_image(packs: Buildpacks) -> None:
    plain = {"go.mod": "module x", "main.go": MAIN}
    for more in (
        {"c/c.go": 'package c\n// int x;\nimport "C"\n'},
        {"go.mod": "module x\nrequire github.com/mattn/go-sqlite3 v1\n"},
    ):
        made = plan(packs, plain | more)
        assert (made.values["cgo"], made.bases[1]) == (True, "base")
    assert plan(packs, plain).values["cgo"] is False
    assert plan(packs, plain, packages=("imagemagick",)).bases[1] == "base"


def test_the_dockerfile(packs: Buildpacks) -> None:
    files = {"go.mod": "module x.org/a", "main.go": MAIN, "vendor/modules.txt": "", "Procfile": "web: go run ."}
    made = plan(packs, files)
    rendered = packs.render(made, BASES, "app1", "bookworm")
    text = rendered["Dockerfile"]
    assert 'GOFLAGS="-trimpath -buildvcs=false -mod=vendor"' in text
    assert "id=paasd-app1-go,target=/var/cache/go,from=go,source=/var/cache/go" in text
    assert "FROM paasd/go-run:bookworm AS run\n" in text
    assert "find . -path ./vendor -prune -o ! -type d" in text
    assert ".|./|[!/]*.go|./*.go) shift; binary=/app/bin/a;" in rendered["go-run"]
    without = packs.render(replace(made, values={**made.values, "go_run": False}), BASES, "app1", "bookworm")
    assert "/usr/local/bin/go\n" not in without["Dockerfile"]


def test_a_build_command_is_run_instead(packs: Buildpacks) -> None:
    made = plan(packs, {"go.mod": "module x", "main.go": MAIN}, install_command="make deps", build_command="make")
    assert made.values["commands"] == ["make deps", "make"]


def test_module_settings_of_the_host(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("GOPROXY=http://a.invalid\nGOFLAGS=-x\nGOPRIVATE=x.org\n")
    environ = {"GOENV": str(file), "GOPROXY": "http://b.invalid\nGOFLAGS=-y"}
    assert host_go_env(environ) == "GOPRIVATE=x.org\nGOPROXY=http://b.invalid GOFLAGS=-y\n"
    assert host_go_env({"HOME": str(tmp_path)}) == ""


def test_programs_are_built_together_where_go_names_them_alike(packs: Buildpacks) -> None:
    files = {
        "go.mod": "module x.org/a",
        "main.go": MAIN,
        "cmd/b/main.go": MAIN,
        "cmd/c/main.go": MAIN,
        "cmd/x/c/a.go": MAIN,
    }
    (command,) = plan(packs, files).values["commands"]
    assert command == (
        "go build -ldflags='-s -w' -o bin/a . && go build -ldflags='-s -w' -o bin/cmd-x-c ./cmd/x/c"
        " && go build -ldflags='-s -w' -o bin/ ./cmd/b ./cmd/c"
    )
