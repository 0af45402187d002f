"""Values of secrets never stand in what a build prints."""

from __future__ import annotations

from paasd.build.masking import masking
from paasd.build.output import BuildOutput
from paasd.build.trace import Status, Vertex, VertexLog
from paasd.models import Secret


def masked(line: str, *values: str) -> str:
    return masking(map(Secret, values))(line.encode()).decode()


def test_values_are_masked_wherever_they_stand() -> None:
    assert masked("with s3cret-1 and s3cret-1x", "s3cret-1") == "with **** and ****x"
    assert masked("s3cret-12", "s3cret", "s3cret-12") == "****"
    assert masked("a.c", "a.c.e.g") == "a.c"


def test_each_line_of_a_value_is_masked() -> None:
    key = "-----BEGIN KEY-----\nMIIabcdef\n-----END KEY-----\n"
    assert masked("MIIabcdef", key) == "****"
    assert masked("  MIIabcdef  ", key) == "  ****  "


def test_short_values_and_words_of_every_log_are_left() -> None:
    assert masked("true 1 production", "true", "1", "production", "") == "true 1 production"


def test_the_tail_of_a_failed_step_is_masked_before_lines_are_cut() -> None:
    lines: list[str] = []
    output = BuildOutput(lines.append, masking([Secret("s3cret-1")]))
    text = b"x" * 1996 + b"s3cret-1\n"
    output.show(Status((Vertex("d", "[1/1] RUN it", started=1.0),), ()))
    output.show(Status((Vertex("d", "[1/1] RUN it", started=1.0, completed=2.0, error="no"),), (VertexLog("d", text),)))
    assert output.tail() == ("x" * 1996 + "****",)
    assert "s3cret" not in "".join(lines)
