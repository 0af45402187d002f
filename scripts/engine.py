"""Start a Docker engine in the background unless one answers on the default socket, and wait until it does."""

import http.client
import os
import socket
import subprocess
import sys
import time

SOCKET = "/var/run/docker.sock"
LOG = "/var/log/paasd-dockerd.log"


def answers() -> bool:
    connection = http.client.HTTPConnection("docker", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(5)
    try:
        connection.sock.connect(SOCKET)
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main() -> int:
    if answers():
        return 0
    with open(LOG, "ab") as log:
        subprocess.Popen(
            ["dockerd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=os.environ,
        )
    for _ in range(300):
        if answers():
            return 0
        time.sleep(0.2)
    print(f"the Docker engine did not start; see {LOG}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
