"""Plans of the Rust buildpack."""

from __future__ import annotations

from typing import Any

import pytest

from paasd.build.buildpacks import Buildpacks
from paasd.build.plan import Plan, Settings
from paasd.errors import SourceRejected
from tests.unit.test_buildpacks import DEBIAN, ROOT, Repository

PACKAGE = '[package]\nname = "hello"\n'
BASES = {"rust": "paasd/rust:1.96", "rust-run": "paasd/rust-run:1.96", "rust-full": "paasd/rust-full:1.96"}


@pytest.fixture(scope="module")
def packs() -> Buildpacks:
    return Buildpacks(ROOT)


def plan(packs: Buildpacks, files: dict[str, str], **settings: Any) -> Plan:
    types = ("web",) if "web:" in files.get("Procfile", "") else None
    chosen = Settings(process_types=types, **settings)
    return packs.plan(Repository(files), 5000, wanted="rust", settings=chosen, suites=DEBIAN)


def hello(extra: str = "", **files: str) -> dict[str, str]:
    return {"Cargo.toml": f"{PACKAGE}{extra}", "src/main.rs": "", **files}


def types(made: Plan) -> dict[str, str | None]:
    return {process.name: process.command for process in made.process_types}


@pytest.mark.parametrize(
    ("files", "version"),
    [
        (hello(), "1.96"),
        (hello('rust-version = "1.56"'), "1.96"),
        (hello('rust-version = "1.97.1"'), "1.97"),
        (hello(**{"rust-toolchain": "1.75.0\n"}), "1.85"),
        (hello(**{"rust-toolchain": "stable"}), "1.96"),
        (hello('rust-version = "1.56"', **{"rust-toolchain.toml": '[toolchain]\nchannel = "1.85"'}), "1.85"),
        (hello(**{"rust-toolchain.toml": '[toolchain]\ncomponents = ["clippy"]'}), "1.96"),
        (hello('[workspace.package]\nrust-version = "1.97"'), "1.97"),
    ],
)
def test_files_choose_the_compiler(packs: Buildpacks, files: dict[str, str], version: str) -> None:
    made = plan(packs, files)
    assert made.versions == {"rust": version}
    assert made.bases == (f"rust@{version}", f"rust-run@{version}")
    assert plan(packs, files, version="1.85").versions == {"rust": "1.85"}


@pytest.mark.parametrize("channel", ["nightly", "nightly-2024-01-01", "1.99.0", "beta"])
def test_a_compiler_that_cannot_be_had_is_refused(packs: Buildpacks, channel: str) -> None:
    with pytest.raises(SourceRejected) as caught:
        plan(packs, hello(**{"rust-toolchain": channel}))
    assert caught.value.detail == f"rust-toolchain asks for Rust '{channel}', which cannot be had here"
    assert caught.value.hint == "There are: 1.96, 1.97, 1.85. Ask for one of them, or for stable."


@pytest.mark.parametrize(
    ("files", "binaries", "web"),
    [
        (hello(), {"hello"}, "hello"),
        (hello('[[bin]]\nname = "site"\npath = "src/main.rs"'), {"site"}, "site"),
        (
            hello(**{"src/bin/job.rs": "", "src/bin/web/main.rs": "", "src/bin/x/y.rs": ""}),
            {"hello", "job", "web"},
            "web",
        ),
        (hello('default-run = "job"', **{"src/bin/job.rs": "", "src/bin/web.rs": ""}), {"hello", "job", "web"}, "job"),
        (hello("autobins = false\n[[bin]]\nname='a'\npath='x.rs'", **{"src/bin/job.rs": ""}), {"a"}, "a"),
        (
            {
                "Cargo.toml": '[workspace]\nmembers = ["crates/*", "app"]\nexclude = ["crates/old"]',
                "app/Cargo.toml": '[package]\nname = "site"',
                "app/src/main.rs": "",
                "crates/job/Cargo.toml": '[package]\nname = "job"',
                "crates/job/src/main.rs": "",
                "crates/lib/Cargo.toml": '[package]\nname = "lib"',
                "crates/old/Cargo.toml": '[package]\nname = "old"',
                "crates/old/src/main.rs": "",
                "crates/job/deep/Cargo.toml": '[package]\nname = "deep"',
                "crates/job/deep/src/main.rs": "",
            },
            {"site", "job"},
            "site",
        ),
        (
            {
                "Cargo.toml": '[workspace]\nmembers = ["a", "b"]\ndefault-members = ["b"]',
                "a/Cargo.toml": '[package]\nname = "a"',
                "a/src/main.rs": "",
                "b/Cargo.toml": '[package]\nname = "b"',
                "b/src/main.rs": "",
            },
            {"b"},
            "b",
        ),
    ],
)
def test_crates_become_binaries(packs: Buildpacks, files: dict[str, str], binaries: set[str], web: str) -> None:
    made = plan(packs, files)
    (command,) = made.values["commands"]
    assert {word for word in command.partition("&&")[0].split() if word in binaries} == binaries
    assert command.count("--bin") == len(binaries)
    assert types(made)["web"] == web
    assert set(types(made)) == {"web"} | binaries - {web}


def test_what_cannot_be_started_or_built_is_refused(packs: Buildpacks) -> None:
    two = {"Cargo.toml": PACKAGE, "src/bin/a.rs": "", "src/bin/b.rs": ""}
    with pytest.raises(SourceRejected, match="nothing says which one is web: a, b"):
        plan(packs, two)
    assert plan(packs, two | {"Procfile": "web: a"}).process_types == ()
    assert types(plan(packs, two, start_command="b")) == {"web": "b"}
    with pytest.raises(SourceRejected, match="no program was found"):
        plan(packs, {"Cargo.toml": PACKAGE, "src/lib.rs": ""})
    with pytest.raises(SourceRejected, match="is not valid TOML"):
        plan(packs, {"Cargo.toml": "[package"})
    with pytest.raises(SourceRejected, match="names a binary"):
        plan(packs, hello('[[bin]]\nname = "a; id"'))


def test_the_lock_file_tells_of_libraries_and_frameworks(packs: Buildpacks) -> None:
    lock = '[[package]]\nname = "rocket"\n[[package]]\nname = "openssl-sys"\n'
    made = plan(packs, hello(**{"Cargo.lock": lock}))
    assert made.bases == ("rust@1.96", "rust-full@1.96")
    assert types(made) == {"web": "ROCKET_ADDRESS=0.0.0.0 ROCKET_PORT=$PORT exec hello"}
    assert "cargo build --release --locked --bin hello" in made.values["commands"][0]
    assert "--locked" not in plan(packs, hello()).values["commands"][0]
    assert plan(packs, hello(), packages=("imagemagick",)).bases[1] == "rust-full@1.96"


def test_the_dockerfile(packs: Buildpacks) -> None:
    config = '[source.v]\ndirectory = "third/party"\n[source.w]\ndirectory = "/etc"\n'
    made = plan(packs, hello(**{".cargo/config.toml": config, "Procfile": "web: cargo run --release"}))
    rendered = packs.render(made, BASES, "app1", "bookworm")
    assert "find . -path ./target -prune -o -path ./third/party -prune -o ! -type d" in rendered["Dockerfile"]
    assert "id=paasd-app1-cargo-1.96,target=/var/cache/cargo" in rendered["Dockerfile"]
    assert "binary=hello\n" in rendered["cargo-run"]
    assert plan(packs, hello(), build_command="make").values["commands"] == ["make"]
