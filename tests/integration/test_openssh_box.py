"""The whole box behind a real sshd instead of the embedded server."""

from __future__ import annotations

import getpass
from collections.abc import Callable

import pytest

from tests.box import Box

pytestmark = pytest.mark.engine


def test_pushes_and_commands_work_the_same_through_sshd(new_box: Callable[..., Box]) -> None:
    box = new_box(ssh_transport="openssh")
    box.user = getpass.getuser()
    box.start()
    assert box.ssh("apps:create", "through-sshd").status == 0
    repository = box.repository({"index.html": "served"})
    pushed = box.push(repository, "through-sshd")
    assert pushed.status == 0, pushed
    assert "is live" in pushed.all
    assert box.get("through-sshd").text == "served"
    broken = repository.commit({"Procfile": "not a procfile"})
    refused = box.push(repository, "through-sshd")
    assert refused.status != 0, broken
    assert "Procfile line 1" in refused.all
    assert box.ssh("run", "through-sshd", "cat", stdin="piped").out == "piped"
    assert box.ssh("version", key=box.new_key("stranger")).status == 255
