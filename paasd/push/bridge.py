"""What sshd starts: hands one session's descriptors to the daemon, or asks it for a key's line. Stands alone.

    bridge.py key SOCKET TYPE KEY       as AuthorizedKeysCommand: prints the authorized_keys line, or nothing
    bridge.py session SOCKET TYPE KEY   as forced command: becomes the session, exits with its status

Runs with `python -I -S` and imports little, because a user waits for its start twice in each connection. Messages are
lines of JSON over a Unix socket; the first message of a session carries descriptors 0, 1 and 2.
"""

import array
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios

GONE = 255
INTERRUPTED = 130


def main(mode: str, path: str, key_type: str, key: str) -> int:
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    daemon.settimeout(20)
    try:
        daemon.connect(path)
    except OSError:
        if mode == "session":
            sys.stderr.write(" !     paasd is not running; try again in a moment\n")
        return 1
    return ask(daemon, key_type, key) if mode == "key" else session(daemon, key_type, key)


def ask(daemon: socket.socket, key_type: str, key: str) -> int:
    daemon.sendall(json.dumps({"ask": True, "type": key_type, "key": key}).encode() + b"\n")
    line = daemon.makefile().readline()
    sys.stdout.write(json.loads(line)["line"] if line else "")
    return 0


def session(daemon: socket.socket, key_type: str, key: str) -> int:
    wakes, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGWINCH, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    message = {
        "type": key_type,
        "key": key,
        "command": os.environb.get(b"SSH_ORIGINAL_COMMAND", b"").decode(errors="surrogateescape"),
        "git_protocol": os.environ.get("GIT_PROTOCOL"),
        "terminal": terminal(),
    }
    descriptors = array.array("i", [0, 1, 2])
    data = json.dumps(message).encode() + b"\n"
    sent = daemon.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    if sent < len(data):
        daemon.sendall(data[sent:])
    return wait(daemon, wakes)


def wait(daemon: socket.socket, wakes: socket.socket) -> int:
    """Until the daemon tells the exit status. Leaving early closes the socket: that tells the daemon."""
    poll = select.poll()
    poll.register(daemon, select.POLLIN)
    poll.register(wakes, select.POLLIN)
    poll.register(1, 0)  # errors and hang-ups are always reported: sshd closed its end
    while True:
        ready = dict(poll.poll())
        if daemon.fileno() in ready:
            answer = daemon.recv(100)
            return int(answer) if answer.strip().isdigit() else GONE
        if wakes.fileno() in ready:
            signals = wakes.recv(100)
            if any(number != signal.SIGWINCH for number in signals):
                return INTERRUPTED
            try:
                daemon.sendall(json.dumps({"terminal": terminal()}).encode() + b"\n")
            except OSError:
                pass  # the session is ending; its status comes next
        elif 1 in ready:
            return GONE


def terminal() -> "list[object] | None":
    if not os.isatty(0):
        return None
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
    return [columns or 80, rows or 24, os.environ.get("TERM", "xterm")[:64]]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
