"""The README shows what a push really prints, but for numbers, host names and the order of parallel steps."""

from __future__ import annotations

import re

import pytest

from tests.box import ROOT, Box

pytestmark = pytest.mark.engine


def normalised(text: str) -> list[str]:
    """Lines without what differs from push to push; steps of parallel stages sorted."""
    lines = [line.removeprefix("remote: ").rstrip() for line in text.splitlines() if line.startswith("remote: ")]
    lines = [re.sub(r"\b[0-9a-f]{8}\b", "REVISION", line) for line in lines]
    # BuildKit calls a base image's step done or cached, as it pleases.
    lines = [line for line in lines if "] FROM paasd/" not in line and not line.strip().startswith("done in")]
    lines = [re.sub(r"\d+\.\d+ ?s", "N s", line) for line in lines]
    lines = [re.sub(r"http://hello\.localhost(:\d+)?", "URL", line) for line in lines]
    return sorted(line for line in lines if line.strip())


def test_the_readme_shows_what_a_push_prints(box: Box) -> None:
    readme = (ROOT / "README.md").read_text()
    transcript = readme.partition("$ git push paasd main\n")[2].partition("```")[0]
    box.ssh("apps:destroy", "hello", "--force")
    repository = box.repository(example="python")
    assert box.push(repository, "hello").status == 0
    repository.commit({"app.py": (repository.path / "app.py").read_text() + "\n# one line\n"})
    pushed = box.push(repository, "hello")
    assert pushed.status == 0
    assert normalised(pushed.err) == normalised(transcript)
    box.ssh("apps:destroy", "hello", "--force")
