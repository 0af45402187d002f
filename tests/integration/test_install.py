"""install.sh for real, on this machine: installed, used, upgraded under load, uninstalled, brought back, purged.

It uses the real places (/opt/paasd, /etc/paasd, /var/lib/paasd, the user paasd), so it is skipped where a paasd is
installed already.
"""

from __future__ import annotations

import http.client
import os
import pwd
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box import ROOT, Done, labelled, run
from tests.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(540)]

PLACES = [Path(p) for p in ("/opt/paasd", "/etc/paasd", "/var/lib/paasd", "/usr/local/bin/paasd")]


def install(*options: str) -> Done:
    return run([str(ROOT / "install.sh"), *options], timeout=400)


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int, int]]:
    if os.geteuid() != 0 or any(path.exists() for path in PLACES):
        pytest.skip("needs root and a machine without an installed paasd")
    found = free_port(), free_port(), free_port()
    try:
        yield found
    finally:
        install("--purge")


def get(port: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": "hello.localhost"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--frobnicate"], "unknown option: --frobnicate"),
        (["--http-port"], "--http-port needs a value"),
        (["--http-port", "70000"], "70000 is not a port"),
        (["--ssh-port", "22; id"], "is not a port"),
        (["--admin-key", "/nonexistent"], "/nonexistent"),
    ],
)
def test_wrong_options_are_named_and_nothing_happens(options: list[str], reason: str) -> None:
    before = [path.exists() for path in PLACES]
    done = install(*options)
    assert done.status != 0
    assert reason in done.err
    assert [path.exists() for path in PLACES] == before


def test_help_names_every_option() -> None:
    done = install("--help")
    assert done.status == 0
    for option in ("--demo", "--domain", "--admin-key", "--http-port", "--https-port", "--ssh-port", "--purge"):
        assert option in done.out


def test_a_life_from_demo_to_purge(ports: tuple[int, int, int]) -> None:
    http_port, https_port, ssh_port = ports
    options = ["--http-port", str(http_port), "--https-port", str(https_port), "--ssh-port", str(ssh_port)]
    done = install("--demo", *options)
    assert done.status == 0, done.all
    assert f"http://hello.localhost:{http_port} answers:\n       200 OK" in done.out
    runs_as_its_own_user()
    reached_by_members_of_the_group_only()
    examined_and_in_agreement()
    upgraded_under_load(http_port)
    uninstalled_and_brought_back(http_port)
    purged()


def runs_as_its_own_user() -> None:
    paasd = pwd.getpwnam("paasd").pw_uid
    pid = int(Path("/var/lib/paasd/run/paasd.pid").read_text())
    nginx = int(Path("/var/lib/paasd/edge/nginx.pid").read_text())
    for process, capabilities in ((pid, {10, 12, 13}), (nginx, {10})):
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line
        )
        assert int(status["Uid"].split()[0]) == paasd
        assert int(status["CapPrm"], 16) & ~sum(1 << number for number in capabilities) == 0
        assert status["NoNewPrivs"].strip() == "1"
    assert Path("/var/lib/paasd").stat().st_mode & 0o777 == 0o710  # the group may pass to the API, not look


def reached_by_members_of_the_group_only() -> None:
    def apps_as(group: str) -> Done:
        return run(["setpriv", "--reuid=nobody", f"--regid={group}", "--clear-groups", "paasd", "apps:list"])

    assert "hello" in apps_as("paasd").out
    refused = apps_as("nogroup")
    assert refused.status == 1 and "may not use" in refused.err


def examined_and_in_agreement() -> None:
    done = run(["/usr/local/bin/paasd", "doctor"])
    assert done.status == 0, done.all
    assert "FAIL  " not in done.out
    assert run(["/usr/local/bin/paasd", "doctor", "--state"]).status == 0


def upgraded_under_load(http_port: int) -> None:
    """Without options: the ports of the first time stay, and no request fails meanwhile."""
    nginx = Path("/var/lib/paasd/edge/nginx.pid").read_text()
    config = Path("/etc/paasd/paasd.toml")
    config.write_text("# kept by hand\n" + config.read_text())
    answers: list[int | str] = []
    stop = threading.Event()

    def visit() -> None:
        while not stop.is_set():
            try:
                answers.append(get(http_port)[0])
            except OSError as error:
                answers.append(str(error))
            time.sleep(0.01)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        done = install()
    finally:
        stop.set()
        visitor.join()
    assert done.status == 0, done.all
    assert set(answers) == {200}
    assert Path("/var/lib/paasd/edge/nginx.pid").read_text() == nginx
    assert "# kept by hand" in config.read_text()


def uninstalled_and_brought_back(http_port: int) -> None:
    assert install("--uninstall").status == 0
    assert [path.exists() for path in PLACES] == [False, True, True, False]
    assert {c["State"] for c in labelled("containers", "paasd")} == {"exited"}
    with pytest.raises(OSError):
        get(http_port)
    done = install()
    assert done.status == 0, done.all
    deadline = time.monotonic() + 60
    while get(http_port)[0] != 200:
        assert time.monotonic() < deadline, "the app did not come back"
        time.sleep(0.1)


def purged() -> None:
    done = install("--purge")
    assert done.status == 0, done.all
    assert not any(path.exists() for path in PLACES)
    assert [labelled(kind, "paasd") for kind in ("containers", "networks", "images")] == [[], [], []]
    with pytest.raises(KeyError):
        pwd.getpwnam("paasd")
    saved = subprocess.run(["iptables-save", "-t", "filter"], capture_output=True, text=True, timeout=20, check=True)
    assert "PAASD-paasd-" not in saved.stdout
