"""Rust repositories of several shapes, pushed and fetched."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.box import EXAMPLES, Box

pytestmark = [pytest.mark.engine, pytest.mark.timeout(500)]

MAIN = (EXAMPLES / "rust/example/src/main.rs").read_text()
CHECKSUM = "5" * 64


def manifest(name: str, more: str = "") -> str:
    return f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2021"\n{more}'


def test_the_example_and_a_change_with_an_old_date(box: Box) -> None:
    repository = box.repository(example="rust")
    pushed = box.push(repository, "rust-example")
    assert pushed.status == 0, pushed
    assert "Cargo.toml rust-version: 1.80, which newer compilers build too: Rust 1.96" in pushed.all
    assert box.get("rust-example").text == "Hello from paasd, release v1\n"
    # Cargo believes times of files: a commit older than the last build must still be built.
    (repository.path / "src/main.rs").write_text(MAIN.replace("Hello", "Bonjour"))
    old = {**os.environ, "GIT_COMMITTER_DATE": "2001-01-01T00:00:00Z", "GIT_AUTHOR_DATE": "2001-01-01T00:00:00Z"}
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    command = ["git", "-C", str(repository.path), *identity, "commit", "-qam", "older than the build"]
    subprocess.run(command, env=old, check=True, timeout=30)
    assert box.push(repository, "rust-example").status == 0
    assert box.get("rust-example").text == "Bonjour from paasd, release v2\n"
    listing = box.ssh("run", "rust-example", "find", ".", "-type", "f").out.split()
    assert sorted(listing) == ["./Cargo.lock", "./Cargo.toml", "./bin/hello"]


def test_a_workspace_with_vendored_crates_and_an_older_compiler(box: Box) -> None:
    registry = "registry+https://github.com/rust-lang/crates.io-index"
    repository = box.repository(
        {
            "Cargo.toml": '[workspace]\nmembers = ["crates/*"]\nresolver = "2"\n',
            "Cargo.lock": (
                f'version = 3\n\n[[package]]\nname = "greet"\nversion = "1.0.0"\nsource = "{registry}"\n'
                f'checksum = "{CHECKSUM}"\n\n[[package]]\nname = "job"\nversion = "1.0.0"\n\n'
                '[[package]]\nname = "site"\nversion = "1.0.0"\ndependencies = [\n "greet",\n]\n'
            ),
            "rust-toolchain": "1.75.0\n",
            ".cargo/config.toml": '[source.crates-io]\nreplace-with = "v"\n\n[source.v]\ndirectory = "vendor"\n',
            "vendor/greet/Cargo.toml": manifest("greet"),
            "vendor/greet/src/lib.rs": 'pub fn greeting() -> &\'static str { "Vendored" }\n',
            "vendor/greet/.cargo-checksum.json": f'{{"files":{{}},"package":"{CHECKSUM}"}}',
            "crates/job/Cargo.toml": manifest("job"),
            "crates/job/src/main.rs": 'fn main() { println!("job done") }\n',
            "crates/site/Cargo.toml": manifest("site", '\n[dependencies]\ngreet = "1"\n'),
            "crates/site/src/main.rs": MAIN.replace('"Hello from', '"{} from').replace(
                '{release}\\n")', '{release}\\n", greet::greeting())'
            ),
            "Procfile": "web: cargo run --release --bin site\njob: ./target/release/job\n",
        }
    )
    pushed = box.push(repository, "rust-workspace")
    assert pushed.status == 0, pushed
    assert "rust-toolchain: 1.75.0, which newer compilers build too: Rust 1.85" in pushed.all
    assert "dependencies come from vendor, nothing is fetched" in pushed.all
    assert box.get("rust-workspace").text == "Vendored from paasd, release v1\n"
    assert "there is no Rust toolchain at run time" in box.ssh("logs", "rust-workspace").out
    assert "job done" in box.ssh("run", "rust-workspace", "./target/release/job").out


def test_what_is_wrong_is_said(box: Box) -> None:
    files = {"Cargo.toml": manifest("x"), "src/main.rs": "fn main() { undefined_name() }\n"}
    pushed = box.push(box.repository(files), "rust-wrong")
    assert pushed.status != 0
    assert "Rust: cannot find function `undefined_name` in this scope (src/main.rs:1)" in pushed.all
    lock = 'version = 3\n\n[[package]]\nname = "another"\nversion = "0.1.0"\n'
    pushed = box.push(box.repository(files | {"Cargo.lock": lock}), "rust-wrong")
    assert pushed.status != 0 and "Cargo.lock does not fit Cargo.toml: run `cargo build`" in pushed.all, pushed
    pushed = box.push(
        box.repository(files | {"rust-toolchain.toml": '[toolchain]\nchannel = "nightly"\n'}), "rust-wrong"
    )
    assert pushed.status != 0
    assert "rust-toolchain.toml asks for Rust 'nightly', which cannot be had here" in pushed.all
    assert "There are: 1.96, 1.97, 1.85" in pushed.all
