"""A box's Nginx without its daemon, as a restart of the machine leaves it."""

from __future__ import annotations

import subprocess

import psutil

from tests.box import Box


def restart_alone(box: Box) -> None:
    """Kill it, workers and all, and start it by hand on what is in its files."""
    box.kill_nginx()
    edge = box.data / "edge"
    workers = [
        process
        for process in psutil.process_iter()
        if process.name() == "nginx" and any(str(edge) in file.path for file in process.open_files())
    ]
    for process in workers:
        process.kill()
    psutil.wait_procs(workers, 5)
    (edge / "control" / "control.sock").unlink(missing_ok=True)
    subprocess.run(
        ["/usr/sbin/nginx", "-p", str(edge), "-e", str(edge / "logs" / "error.log"), "-c", str(edge / "nginx.conf")],
        check=True,
        timeout=20,
    )
