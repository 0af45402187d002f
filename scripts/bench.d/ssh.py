"""`ssh … apps:list` on paasd's own SSH front against `ssh … true` on a plain sshd on loopback: same client, same key,
same options. Rounds alternate; prints medians and ratios, the OpenSSH transport's for information."""

from __future__ import annotations

import argparse
import getpass
import pwd
from collections.abc import Callable

from _common import Box, PlainSshd, machine, ok, ratio, spread, started_box, timed, verdict

from tests.box import run

APPS = 3
TARGET = 1.5


def measure(rounds: int, embedded: Box, sshd: PlainSshd, openssh: Box) -> dict[str, list[float]]:
    floor = [*embedded.ssh_command(), "-p", str(sshd.port), f"{sshd.user}@127.0.0.1", "true"]
    login = "paasd" if _exists("paasd") else getpass.getuser()
    bridged = [*openssh.ssh_command(), "-p", str(openssh.ssh_port), f"{login}@127.0.0.1", "apps:list"]
    sides: dict[str, Callable[[], object]] = {
        "embedded": lambda: ok(embedded.ssh("apps:list")),
        "sshd": lambda: ok(run(floor)),
        "openssh": lambda: ok(run(bridged)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 2):
        for name, side in sides.items():
            took = timed(side)
            if number >= 2:  # the first two warm up
                seconds[name].append(took)
    return seconds


def _exists(user: str) -> bool:
    return any(entry.pw_name == user for entry in pwd.getpwall())


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    print(f"ssh, one command, {rounds} rounds ({machine()}):")
    with started_box() as embedded, started_box(ssh_transport="openssh") as openssh:
        for box in (embedded, openssh):
            for number in range(APPS):
                ok(box.local("apps:create", f"bench-{number}"))
        sshd = PlainSshd(embedded.root / "sshd", embedded.key)
        try:
            seconds = measure(rounds, embedded, sshd, openssh)
        finally:
            sshd.close()
    print(f"  apps:list, embedded server    {spread(seconds['embedded'])}")
    print(f"  true, plain sshd              {spread(seconds['sshd'])}")
    value = ratio(seconds["openssh"], seconds["sshd"])
    print(f"  apps:list, OpenSSH transport  {spread(seconds['openssh'])}, ratio {value:.2f} (for information)")
    value = ratio(seconds["embedded"], seconds["sshd"])
    return verdict(f"ratio {value:.2f} (target at most {TARGET})", value <= TARGET)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
