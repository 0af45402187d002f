# The pre-receive hook: asks the daemon to deploy what was pushed, copies its answer to the pusher, and accepts the
# push only if it is live. Runs with `python -IS`, so it imports as little as it can to start fast.
#
# It speaks HTTP/1.0 to the API's Unix socket, whose answer then simply ends with the connection.
import json
import os
import socket
import sys


def main() -> int:
    lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")
    updates = [line.split(" ", 2) for line in lines if line]
    count = int(os.environ.get("GIT_PUSH_OPTION_COUNT", "0"))
    request = {
        "updates": [{"old": old, "new": new, "ref": ref} for old, new, ref in updates],
        "options": [os.environ.get(f"GIT_PUSH_OPTION_{i}", "") for i in range(count)],
        "quarantine": os.environ.get("GIT_QUARANTINE_PATH", ""),
    }
    try:
        return relay(json.dumps(request).encode())
    except OSError as error:
        say(f" !     paasd stopped answering ({error}); the push was not deployed. Try again.")
        return 1


def relay(body: bytes) -> int:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(os.environ["PAASD_API"])
    path = f"/api/v1/apps/{os.environ['PAASD_APP']}/pushes"
    head = (
        f"POST {path} HTTP/1.0\r\nHost: paasd\r\nAuthorization: Bearer {os.environ['PAASD_TOKEN']}\r\n"
        f"Content-Type: application/json\r\nAccept: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    answer = connection.makefile("rb")
    while answer.readline() not in (b"\r\n", b""):
        pass
    for line in answer:
        try:
            message = json.loads(line)
        except ValueError:
            break  # cut off in the middle
        if "line" in message:
            say(message["line"])
        elif "result" in message:
            return 0
        else:
            explain(message.get("error", message))
            return 1
    app = os.environ["PAASD_APP"]
    say(f" !     paasd stopped in the middle of the push. See what is live with: releases {app}; then push again.")
    return 1


def explain(problem: dict[str, str]) -> None:
    for text in (problem.get("detail", "the push was refused"), problem.get("hint", "")):
        for line in text.splitlines():
            say(f" !     {line}")


def say(text: str) -> None:
    # What an app or a repository wrote may be in it. Regular expressions would double the time this takes to start.
    shown = "".join(c for c in text if c == "\t" or " " <= c < "\x7f" or c >= "\xa0")
    sys.stderr.write(f"{shown}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        sys.exit(1)
