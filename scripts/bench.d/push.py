"""One-line change in the Python example, warm cache: `git push` to the first new answer through the edge, against the
floor: a post-receive script that pipes git archive into BuildKit, runs the container, waits for its port and reloads
Nginx. Rounds alternate; prints medians, the ratio and each phase's share."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from _common import Box, FirstAnswer, PlainSshd, eventually, started_box

from tests.box import Repository, docker
from tests.ports import free_port

HOOK = """#!/bin/sh
read old new ref
git archive $new | curl -sN --unix-socket /var/run/docker.sock -X POST -H 'Content-Type: application/x-tar' \\
  --data-binary @- "http://docker/build?version=2&t={name}:$new" > /dev/null
before=$(cat {root}/container 2>/dev/null)
container=$(docker run -d --init -e PORT=5000 {name}:$new)
address=$(docker inspect -f '{{{{.NetworkSettings.IPAddress}}}}' $container)
until curl -s -o /dev/null http://$address:5000/health; do sleep 0.02; done
echo "server $address:5000;" > {root}/upstream.conf
{nginx} -c {root}/nginx.conf -s reload
echo $container > {root}/container
[ -n "$before" ] && (docker rm -f $before > /dev/null 2>&1 &)
exit 0
"""

NGINX = """daemon on;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{}}
http {{
  access_log off;
  upstream app {{ include {root}/upstream.conf; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; proxy_set_header Host $host; }} }}
}}
"""


class Floor:
    """What somebody would write by hand in half an hour."""

    def __init__(self, root: Path, box: Box) -> None:
        self.name = f"{box.label}-floor"
        self.root = root
        self.port = free_port()
        self.repository = root / "app.git"
        self._nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx"
        root.mkdir()
        subprocess.run(["git", "init", "-q", "--bare", str(self.repository)], check=True)
        hook = self.repository / "hooks" / "post-receive"
        hook.write_text(HOOK.format(name=self.name, root=root, nginx=self._nginx))
        hook.chmod(0o755)
        (root / "upstream.conf").write_text("server 127.0.0.1:9;")
        (root / "nginx.conf").write_text(NGINX.format(root=root, port=self.port))
        subprocess.run([self._nginx, "-c", str(root / "nginx.conf")], check=True)
        self._sshd = PlainSshd(root, box.key)

    def remote(self) -> str:
        return f"ssh://{self._sshd.user}@127.0.0.1:{self._sshd.port}{self.repository}"

    def close(self) -> None:
        subprocess.run([self._nginx, "-c", str(self.root / "nginx.conf"), "-s", "stop"], check=False)
        self._sshd.close()
        for container in docker("GET", "/containers/json?all=1"):
            if container["Image"].startswith(self.name):
                docker("DELETE", f"/containers/{container['Id']}?force=1")
        for image in docker("GET", "/images/json"):
            for tag in image.get("RepoTags") or []:
                if tag.startswith(f"{self.name}:"):
                    docker("DELETE", f"/images/{tag}?force=1")


def timed_push(box: Box, repository: Repository, remote: str, port: int, host: str, number: int) -> float:
    """Seconds from the start of `git push` until the edge serves the change."""
    text = f"Round {number} of {host}"
    app = (repository.path / "app.py.in").read_text().replace("Hello", text)
    (repository.path / "app.py").write_text(app)
    repository.git("commit", "-qam", text)
    watcher = FirstAnswer(port, host, text)
    started = time.monotonic()
    push = subprocess.run(
        ["git", "-C", str(repository.path), "push", "-q", remote, "main"],
        env=box.git_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if push.returncode:
        watcher.cancel()
        raise SystemExit(f"the push failed:\n{push.stderr}")
    return watcher.at(30) - started


def prepared(box: Box, dockerfile: str = "") -> Repository:
    repository = box.repository(example="python")
    app = (repository.path / "app.py").read_text()
    files = {"app.py.in": app}
    if dockerfile:
        files["Dockerfile"] = dockerfile
    repository.commit(files)
    return repository


FLOOR_DOCKERFILE = """FROM paasd/python-build:3.13 AS build
RUN ["python3.13", "-m", "venv", "/opt/venv"]
WORKDIR /app
COPY requirements.txt /app/requirements.txt
RUN --mount=type=cache,id=floor-pip,target=/root/.cache/pip PIP_CERT=/etc/ssl/certs/ca-certificates.crt \\
    /opt/venv/bin/pip install -r requirements.txt

FROM paasd/python:3.13
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 WEB_CONCURRENCY=2
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY --chown=10001:10001 . /app/
USER 10001:10001
CMD {command}
"""


def phases(box: Box, started_at: float) -> dict[str, float]:
    """Seconds of each phase of the newest push, from the box's own events."""
    events = box.api("GET", "/events?app=bench&limit=20")["items"]
    at = {event["type"]: datetime.fromisoformat(event["at"]).timestamp() for event in events}
    return {
        "ssh and git": at["deployment.requested"] - started_at,
        "build": at["build.completed"] - at["deployment.requested"],
        "start and check": at["deployment.completed"] - at["release.created"],
    }


@contextlib.contextmanager
def running() -> Iterator[tuple[Box, Floor]]:
    with started_box() as box:
        floor = Floor(box.root / "floor", box)
        try:
            yield box, floor
        finally:
            floor.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with running() as (box, floor):
        ours = prepared(box)
        timed_push(box, ours, box.remote("bench"), box.http_port, "bench.localhost", 0)
        command = (ours.path / "Procfile").read_text().partition("web:")[2].strip()
        theirs = prepared(box, FLOOR_DOCKERFILE.format(command=command))
        eventually(lambda: floor.root.exists())
        timed_push(box, theirs, floor.remote(), floor.port, "floor", 0)
        own: list[float] = []
        base: list[float] = []
        shares: list[dict[str, float]] = []
        for number in range(1, rounds + 1):
            started_at = time.time()
            own.append(timed_push(box, ours, box.remote("bench"), box.http_port, "bench.localhost", number))
            shares.append(phases(box, started_at))
            base.append(timed_push(box, theirs, floor.remote(), floor.port, "floor", number))
        report(own, base, shares)


def report(own: list[float], base: list[float], shares: list[dict[str, float]]) -> None:
    median: Callable[[list[float]], float] = statistics.median
    ratio = median([a / b for a, b in zip(own, base, strict=True)])
    print(f"push to first new answer, median of {len(own)} rounds:")
    print(f"  paasd {median(own):.3f} s ({min(own):.3f} to {max(own):.3f})")
    print(f"  floor {median(base):.3f} s ({min(base):.3f} to {max(base):.3f})")
    print(f"  ratio {ratio:.2f} (target at most 1.05)")
    total = median(own)
    for name in shares[0]:
        seconds = median([share[name] for share in shares])
        print(f"  {name}: {seconds:.3f} s, {100 * seconds / total:.0f} %")


if __name__ == "__main__":
    main()
