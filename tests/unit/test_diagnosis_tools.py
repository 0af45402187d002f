"""Hints for failed builds of Go, Rust, Ruby and PHP: texts as the tools printed them (Go 1.24, Cargo 1.97, Bundler 2.6,
Composer 2.8), or as their sources have them where a registry would be needed."""

from __future__ import annotations

import pytest

from paasd.build.diagnosis import hint

GO = [
    (
        "main.go:2:8: missing go.sum entry for module providing package github.com/google/uuid (imported by x); to add:"
        "\n\tgo get x",
        "go.sum does not cover github.com/google/uuid: run `go mod tidy`",
    ),
    (
        "go: a.example/b@v1.0.0: missing go.sum entry for go.mod file; to add it:\n\tgo mod download",
        "run `go mod tidy`",
    ),
    ("go: updates to go.mod needed; to update it:\n\tgo mod tidy", "run `go mod tidy`"),
    (
        "go: inconsistent vendoring in /app:\n\tgithub.com/google/uuid@v1.6.0: is explicitly required in go.mod, but"
        " not marked as explicit in vendor/modules.txt",
        "vendor/ does not fit go.mod: run `go mod vendor`",
    ),
    (
        "main.go:2:8: cannot find module providing package a.example/b: import lookup disabled by -mod=vendor",
        "vendor/ lacks a.example/b: run `go mod vendor`",
    ),
    (
        "main.go:2:8: cannot find module providing package a.example/b: import lookup disabled by -mod=readonly",
        "run `go get a.example/b`, commit",
    ),
    ("main.go:2:8: no required module provides package a.example/b; to add it:\n\tgo get a.example/b", "`go get a.ex"),
    ("main.go:2:8: package fmtt is not in std (/usr/local/go/src/fmtt)", "no package fmtt:"),
    ("go: go.mod requires go >= 1.99 (running go 1.24.11; GOTOOLCHAIN=local)", "go.mod needs Go 1.99, and this build"),
    ("go: a.example/b@v2.0.0: invalid version: unknown revision v2.0.0", "There is no a.example/b@v2.0.0:"),
    (
        "go: a.example/b@v1.0.0: reading https://p.invalid/b/@v/v1.0.0.mod: 404 Not Found",
        "no module a.example/b@v1.0.0:",
    ),
    ('go: a.example/b@v1.0.0: Get "https://p.invalid/b": dial tcp: lookup p.invalid: no such host', "not reached"),
    (
        '# x\n./main.go:2:8: "os" imported and not used\n./main.go:3:23: undefined: foo',
        '"os" imported and not used (./ma',
    ),
]
RUST = [
    (
        "error: cannot update the lock file /app/Cargo.lock because --locked was passed to prevent this",
        "Cargo.lock does not fit Cargo.toml: run `cargo build`, commit Cargo.lock",
    ),
    (
        "error: the lock file /app/Cargo.lock needs to be updated but --locked was passed to prevent this",
        "`cargo build`",
    ),
    ("error: no matching package named `nope` found\nlocation searched: crates.io index", "There is no crate nope:"),
    ('error: failed to select a version for the requirement `nope = "^99"`', 'There is no version nope = "^99":'),
    (
        "error: rustc 1.97.1 is not supported by the following package:\n  x@0.1.0 requires rustc 1.999",
        "x@0.1.0 needs Rust 1.999, and this build has 1.97.1",
    ),
    ("  supported edition values are `2015`, `2018`, `2021`, or `2024`, but `2099` is unknown", "the edition 2099:"),
    (
        "error[E0432]: unresolved import `serde`\n --> src/main.rs:1:5\n  |\n1 | use serde::Serialize;\n"
        "  |     ^^^^^ use of unresolved module or unlinked crate `serde`",
        "run `cargo add serde`",
    ),
    ("  = note: /usr/bin/x86_64-linux-gnu-ld.bfd: cannot find -lnopelib: No such file or directory", "libnopelib-dev"),
    (
        "  The system library `libpq` required by crate `pq-sys` was not found.",
        "The crate pq-sys needs the library libpq",
    ),
    ("  Could not find directory of OpenSSL installation, and this `-sys` crate cannot proceed", "libssl-dev"),
    (
        "error[E0425]: cannot find function `foo` in this scope\n --> src/main.rs:1:30\n  |",
        "Rust: cannot find function `foo` in this scope (src/main.rs:1).",
    ),
]
RUBY = [
    (
        "The list of sources changed, the dependencies in your gemfile changed, the\ngemspecs for path gems changed,"
        " but the lockfile can't be updated because frozen\nmode is set\n\nYou have added to"
        " the Gemfile:\n* sinatra (~> 4)",
        "Gemfile.lock does not fit the Gemfile (sinatra (~> 4)): run `bundle install`",
    ),
    ("The list of sources changed, but the lockfile can't be updated because frozen\nmode is set", "`bundle install`"),
    ("Could not find gem 'nope-nope' in rubygems repository https://gems.invalid/ or", "There is no gem nope-nope:"),
    ("Could not reach host gems.invalid. Check your network connection and try again.", "not reached"),
    ("Your Ruby version is 3.3.14, but your Gemfile specified 9.9.9", "asks for Ruby 9.9.9, and this build has 3.3.14"),
    (
        'Your bundle only supports platforms ["x86_64-darwin-22"] but your local platform\nis x86_64-linux-gnu. Add the'
        " current platform to the lockfile with\n`bundle lock --add-platform x86_64-linux-gnu` and try again.",
        "run `bundle lock --add-platform x86_64-linux-gnu`",
    ),
    (
        "[!] There was an error parsing `Gemfile`: syntax error, unexpected `end'. Bundler cannot continue.",
        "Gemfile cannot be read: syntax error, unexpected `end'.",
    ),
    (
        "*** extconf.rb failed ***\nAn error occurred while installing n (1.0.0), and Bundler cannot continue.",
        "n 1.0.0 could not be installed",
    ),
    ("app.rb:3: syntax error, unexpected end-of-input", "Ruby: syntax error, unexpected end-of-input (app.rb:3)."),
]
PHP = [
    (
        '- Required package "x/b" is not present in the lock file.\nThis usually happens when composer files are',
        "composer.lock does not hold x/b: run `composer update x/b`",
    ),
    (
        "    - Root composer.json requires nope/nope, it could not be found in any version, there may be a typo",
        "There is no package nope/nope:",
    ),
    (
        "    - Root composer.json requires x/a ^9, found x/a[1.0.0] but it does not match the constraint.",
        "There is no version ^9 of x/a:",
    ),
    (
        "    - Root composer.json requires PHP extension ext-nope * but it is missing from your system.",
        "PHP has no extension nope here",
    ),
    (
        "    - Root composer.json requires php ^9 but your php version (8.4.28) does not satisfy that requirement.",
        "composer.json asks for PHP ^9, and this build has 8.4.28",
    ),
    ("    - x/a 1.0.0 requires php ^9 -> your php version (8.4.28) does not satisfy", "x/a 1.0.0 asks for PHP ^9, and"),
    ('  "./composer.json" does not contain valid JSON  ', "composer.json is not JSON"),
    (
        "PHP Parse error:  Unclosed '(' on line 2 in /app/a.php on line 3",
        "PHP: Unclosed '(' on line 2 (/app/a.php, line 3)",
    ),
]


@pytest.mark.parametrize(("text", "expected"), [*GO, *RUST, *RUBY, *PHP])
def test_hints(text: str, expected: str) -> None:
    assert expected in hint("1", ["before", *text.split("\n"), "after"])
