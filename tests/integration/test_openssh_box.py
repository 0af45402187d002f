"""The whole box behind a real sshd instead of the embedded server."""

from __future__ import annotations

import getpass
from collections.abc import Callable

import pytest

from tests.box import Box, run

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
    assert box.ssh("edge:set", "through-sshd", "auth.members", "on").status == 0
    link = box.ssh("apps:sign-in", "through-sshd").out.splitlines()[-1]
    signed_in = box.get("through-sshd", link.partition(f":{box.http_port}")[2])
    assert signed_in.status == 303, link
    assert box.ssh("edge:set", "through-sshd", "auth.members").status == 0
    # No ssh -L here, since sshd knows nothing of apps; the command does the same.
    assert box.ssh("ps:forward", "through-sshd", stdin="GET / HTTP/1.0\r\n\r\n").out.endswith("served")
    words = [*box.ssh_command(), "-p", str(box.ssh_port), "-W", "through-sshd:5000", f"{box.user}@127.0.0.1"]
    refused = run(words)
    assert refused.status == 255 and refused.out == ""
