"""Commands of a box, as tests type them."""

from __future__ import annotations

from tests.box import Box


def ok(box: Box, *words: str, stdin: str = "") -> str:
    """What a command says that must succeed."""
    done = box.ssh(*words, stdin=stdin)
    assert done.status == 0, done
    return done.all


def refused(box: Box, *words: str) -> str:
    """The error of a command that must be refused."""
    done = box.ssh(*words)
    assert done.status == 1, done
    return done.err
