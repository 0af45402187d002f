"""What the tools of Go, Rust, Ruby and PHP print when a build fails, and what to do: a part of the table of
`diagnosis.py`, which says how patterns are written. Bundler wraps its lines, so its patterns take any space."""

from __future__ import annotations

TOOL_FAILURES: dict[str, list[tuple[str, str]]] = {
    "Go": [
        (
            r"missing go\.sum entry for module providing package (\S{1,200})",
            "go.sum does not cover {0}: run `go mod tidy`, commit go.mod and go.sum, push again.",
        ),
        (
            r"missing go\.sum entry|updates to go\.mod needed",
            "go.mod and go.sum do not fit the code: run `go mod tidy`, commit both, push again.",
        ),
        (
            r"inconsistent vendoring in ",
            "vendor/ does not fit go.mod: run `go mod vendor`, commit vendor/ and go.mod, push again.",
        ),
        (
            r"cannot find module providing package (\S{1,200}): import lookup disabled by -mod=vendor",
            "vendor/ lacks {0}: run `go mod vendor`, commit vendor/ and go.mod, push again.",
        ),
        (
            r"(?:no required module provides|cannot find module providing) package (\S{1,200}?)[:;]",
            "go.mod names no module that holds {0}: run `go get {0}`, commit go.mod and go.sum, push again.",
        ),
        (
            r"package (\S{1,200}) is not in (?:std|GOROOT)\b",
            "Go's standard library has no package {0}: correct the import; one of a module begins with its host.",
        ),
        (
            r"(?<!\S)(\S{1,200}) requires go >= (\S+) \(running go ([^\s;]+)",
            "{0} needs Go {1}, and this build has {2}: ask for it in the line `go` of go.mod, or with builds:set APP"
            " version.",
        ),
        (
            r"(?<!\S)(\S{1,200}@[^\s:]{1,100}): invalid version: unknown revision",
            "There is no {0}: correct its version in go.mod, run `go mod tidy`, commit go.mod and go.sum.",
        ),
        (
            r"(?<!\S)(\S{1,200}@[^\s:]{1,100}): reading \S{1,300}: (?:404|410)\b",
            "There is no module {0}: correct its name and version in go.mod; for a private one set GOPROXY"
            " and GOPRIVATE on the box.",
        ),
        (r"(?<!\S)([^\s:]{1,200}\.go:\d+):\d+: ([^\n]{1,300})", "Go: {1} ({0})."),
    ],
    "Cargo": [
        (
            r"Cargo\.lock (?:needs to be updated but|because) --locked was passed",
            "Cargo.lock does not fit Cargo.toml: run `cargo build`, commit Cargo.lock, push again.",
        ),
        (
            r"no matching package named `([^`\n]+)` found",
            "There is no crate {0}: correct its name in Cargo.toml; if crates are vendored, run `cargo vendor`.",
        ),
        (
            r"failed to select a version for the requirement `([^`\n]+)`",
            "There is no version {0}: correct it in Cargo.toml, run `cargo update`, commit Cargo.lock as well.",
        ),
        (
            r"rustc (\S+) is not supported by the following packages?:\s{1,9}(\S+) requires rustc (\S+)",
            "{1} needs Rust {2}, and this build has {0}: ask for it in rust-toolchain.toml, or pin an older {1}.",
        ),
        (
            r"supported edition values are [^\n]{0,200} but `(\d+)` is unknown|feature `edition(\d+)` is required",
            "This version of Rust does not know the edition {0}{1}: ask for a newer one in rust-toolchain.toml.",
        ),
        (
            r"use of (?:unresolved module or unlinked crate|undeclared crate or module) `([^`\n]+)`",
            "Cargo.toml names no crate {0}: run `cargo add {0}`, commit Cargo.toml and Cargo.lock, push again.",
        ),
        (
            r"The system library `([^`\n]+)` required by crate `([^`\n]+)` was not found",
            "The crate {1} needs the library {0}: name the package that has it (often lib…-dev) in a file Aptfile.",
        ),
        (
            r"Could not find directory of OpenSSL installation",
            "The headers of OpenSSL are missing: write libssl-dev and pkg-config into a file Aptfile, one a line.",
        ),
        (
            r"cannot find -l([\w.+-]{1,99})",
            "The library {0} is missing: name the package that has it (often lib{0}-dev) in a file Aptfile.",
        ),
        (r"error(?:\[E\d+\])?: ([^\n]{1,300})\n {1,9}--> ([^\s:]{1,200}:\d+)", "Rust: {0} ({1})."),
    ],
    "Bundler": [
        (
            r"You have (?:added to|changed in|deleted from) the Gemfile:\n\* ([^\n]{1,200})",
            "Gemfile.lock does not fit the Gemfile ({0}): run `bundle install`, commit Gemfile.lock, push again.",
        ),
        (
            r"lockfile\s+can't\s+be\s+updated\s+because\s+frozen\s+mode",
            "Gemfile.lock does not fit the Gemfile: run `bundle install`, commit Gemfile.lock, push again.",
        ),
        (
            r"Could not find gem '([^'\n]{1,200})' in",
            "There is no gem {0}: correct it in the Gemfile, run `bundle install`, commit Gemfile.lock as well.",
        ),
        (
            r"Your Ruby version is (\S+), but your Gemfile specified ([^\n]+)",
            "The Gemfile asks for Ruby {1}, and this build has {0}: loosen it, as in ruby '~> 3.3'.",
        ),
        (
            r"Add\s+the\s+current\s+platform\s+to\s+the\s+lockfile\s+with\s+`bundle\s+lock\s+--add-platform\s+(\S+)`",
            "Gemfile.lock is of another system: run `bundle lock --add-platform {0}`, commit Gemfile.lock, push again.",
        ),
        (
            r"There was an error parsing `([^`\n]+)`: ([^\n]{1,200}?)\.? Bundler\s+cannot",
            "{0} cannot be read: {1}.",
        ),
        (
            r"An error occurred while installing (\S+) \(([^)\n]+)\), and\s+Bundler\s+cannot",
            "{0} {1} could not be installed: the lines above say what is missing; name packages for it in a file"
            " Aptfile.",
        ),
        (r"(?<!\S)([^\s:]{1,200}\.r[bu]:\d+): ([^\n]{0,200}syntax error[^\n]{0,200})", "Ruby: {1} ({0})."),
    ],
    "Composer": [
        (
            r"Required package \"([^\"\n]+)\" is not present in the lock file",
            "composer.lock does not hold {0}: run `composer update {0}`, commit composer.lock, push again.",
        ),
        (
            r"requires PHP extension ext-(\S+) [^\n]{1,100} but it is missing",
            "PHP has no extension {0} here: name the package that has it (often php-{0}) in a file Aptfile.",
        ),
        (
            r"requires ([^\s,]{1,200})[^\n,]{0,100}, it could not be found in any version",
            "There is no package {0}: correct its name in composer.json; a private one needs its repository there.",
        ),
        (
            r"requires ([^\s,]{1,200}) ([^\n,]{1,100}), found [^\n]{1,300} but (?:it does|these do) not match",
            "There is no version {1} of {0}: correct it in composer.json, run `composer update {0}`, commit"
            " composer.lock.",
        ),
        (
            r"(?<!\S)(composer\.json|\S{1,200}/\S{1,200} \S{1,99}) requires php (\S+)"
            r" (?:but|->) your php version \(([^)\n]+)\)",
            "{0} asks for PHP {1}, and this build has {2}: ask for such a version under require in composer.json, run"
            " `composer update`, commit composer.lock.",
        ),
        (
            r"does not contain valid JSON",
            "composer.json is not JSON: run `composer validate`, and mend what it shows.",
        ),
        (r"PHP (?:Parse|Fatal) error: +([^\n]{1,300}) in (\S{1,200}) on line (\d+)", "PHP: {0} ({1}, line {2})."),
    ],
}
