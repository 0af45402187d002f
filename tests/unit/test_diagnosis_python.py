"""What the tools of Python print when they fail, and what is said to do about it."""

from __future__ import annotations

import pytest

from paasd.build.diagnosis import hint

OUTPUTS = {
    "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: none)\n"
    "ERROR: No matching distribution found for x==9": "There is no x==9 for this version of Python",
    "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError': /simple/x/\n"
    "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: none)\n"
    "ERROR: No matching distribution found for x==9": "The package index was not reached",
    "ERROR: Cannot install a and b because these package versions have conflicting dependencies.\n\n"
    "The conflict is caused by:\n    The user requested b<2\n    a 3 depends on b>=3\n": "The user requested b<2; a 3",
    "ERROR: Package 'a' requires a different Python: 3.11.2 not in '>=3.12'": "a runs on Python >=3.12 only",
    "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.": "lock again",
    "x.c:1:10: fatal error: lib/no.h: No such file or directory": "The header lib/no.h is missing",
    "Error: pg_config executable not found.": "pg_config is missing",
    "  ERROR: Failed building wheel for some-thing": "some-thing could not be compiled",
    "error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.": "run `uv lock`",
    "  Because nope was not found in the package registry and you require nope": "The registry has no package nope",
    "pyproject.toml changed significantly since poetry.lock was last generated. Run": "run `poetry lock`",
    "WARNING: Lockfile doesn't satisfy the project requirements, packages may be outdated": "run `pdm lock`",
    "Pipfile.lock is out-of-date. Run $ pipenv lock to update.": "run `pipenv lock`",
}


@pytest.mark.parametrize("printed", OUTPUTS)
def test_a_failure_is_told_what_to_do_about_it(printed: str) -> None:
    assert OUTPUTS[printed] in hint("1", ["Collecting x", *printed.split("\n"), "Traceback"])


def test_a_step_that_says_nothing_known_gets_no_hint() -> None:
    assert hint("1", ["RuntimeError: no"]) == ""
