"""Hints for failed builds, from what the tools print."""

from __future__ import annotations

import time

import pytest

from paasd.build.diagnosis import hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "npm error `npm ci` can only install packages when your package.json and package-lock.json or"
            " npm-shrinkwrap.json"
            " are in sync.",
            "commit package-lock.json",
        ),
        ("npm error notarget No matching version found for ms@99.0.0.", "There is no version ms@99.0.0:"),
        ("npm ERR! 404  '@acme/x@^1' is not in this registry.", "no package @acme/x:"),
        ("npm error 404  The requested resource 'nope@1' could not be found or", "no package nope:"),
        ("npm error code E401", "token"),
        (
            'npm error Could not resolve dependency:\nnpm error peer react@"^17" from a@1.0.0',
            'a@1.0.0 wants react@"^17"',
        ),
        ('npm error Missing script: "buidl"', "no script buidl"),
        ("error Your lockfile needs to be updated, but yarn was run with `--frozen-lockfile`.", "commit yarn.lock"),
        ('error Couldn\'t find package "nope" on the "npm" registry.', "no package nope:"),
        ('error Couldn\'t find any versions for "ms" that matches "99"', "no version ms@99"),
        ("➤ YN0028: │ The lockfile would have been modified by this install", "commit yarn.lock"),
        ("➤ YN0035: │ @a/nope@npm:1: Package not found", "no package @a/nope:"),
        ("➤ YN0082: │ ms@npm:99.0.0: No candidates found", "no version ms@npm:99.0.0:"),
        (" ERR_PNPM_OUTDATED_LOCKFILE  Cannot install", "commit pnpm-lock.yaml"),
        (" ERR_PNPM_NO_MATCHING_VERSION  No matching version found for ms@99.0.0", "no version ms@99.0.0:"),
        ("nope is not in the npm registry, or you have no permission", "no package nope:"),
        ("error: lockfile had changes, but lockfile is frozen", "commit bun.lock"),
        ("src/a.ts(3,7): error TS2322: Type 'x' is wrong", "TypeScript: Type 'x' is wrong (src/a.ts, line 3)"),
        ("src/a.ts:3:7 - error TS2322: Type 'x' is wrong", "(src/a.ts, line 3)"),
        ("Error: Cannot find module './x'", "./x cannot be found"),
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", "build.memory"),
        ("Error: ENOSPC: no space left on device, write", "The disk is full"),
        ("request to https://r.invalid failed, reason: getaddrinfo EAI_AGAIN r.invalid", "not reached"),
        ("sh: 1: tsc: not found", "command tsc does not exist"),
        ("everything is fine", ""),
    ],
)
def test_hints(text: str, expected: str) -> None:
    found = hint("1", ["before", *text.split("\n"), "after"])
    assert expected in found and bool(found) is bool(expected)


def test_a_killed_step_wants_memory() -> None:
    assert "build.memory" in hint("137", ["src/a.ts(3,7): error TS2322: x"])


@pytest.mark.parametrize("piece", ["x", "npm error ", "@a/", "YN0035: │ ", "x.ts", "Expected version: ", "a "])
def test_no_output_keeps_it_busy(piece: str) -> None:
    lines = [(piece * 2000)[:2000]] * 200
    started = time.process_time()
    hint("1", lines)
    assert time.process_time() - started < 2
