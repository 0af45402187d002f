"""Small apps for tests: a Dockerfile on the Python base image, a Procfile, and a server that does what the test says.
They build in about half a second, since nothing is installed."""

from __future__ import annotations

import secrets

DOCKERFILE = "FROM paasd/python:3.13\nWORKDIR /app\nCOPY . /app/\n"

_SERVER = """
import http.server, os, signal, sys, threading, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = {body!r}.encode()
        self.send_response({status})
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

def serve(address="0.0.0.0", port=None):
    server = http.server.ThreadingHTTPServer((address, port or int(os.environ["PORT"])), Handler)
    server.serve_forever()
"""


def app(main: str = "serve()", *, body: str = "hello", status: int = 200, **files: str) -> dict[str, str]:
    """An app whose web process runs `main` after the definition of `serve(address, port)`. `files` adds or replaces
    files, dots in their names written as double underscores: `app__json="{}"`."""
    extra = {name.replace("__", "."): text for name, text in files.items()}
    return {
        "Dockerfile": DOCKERFILE,
        "Procfile": "web: python3 -u app.py\n",
        "app.py": f"{_SERVER.format(body=body, status=status)}\n{main}\n",
        **extra,
    }


CRASHES_WHEN_ASKED = """
def do_GET(self, get=Handler.do_GET):
    if self.path == "/crash":
        open("/tmp/crash", "w").close()
        print("bye", flush=True)
        os._exit(7)
    return get(self)

if os.path.exists("/tmp/crash"):
    os._exit(7)
Handler.do_GET = do_GET
serve()
"""
"""A web process that serves until somebody asks for /crash, and then crashes at each start."""

SLOW_BUILD = (
    DOCKERFILE
    + 'RUN ["python3", "-c", "import time; [(print(i, flush=True), time.sleep(0.1)) for i in range({tenths})]"]'
)


def slow_build(seconds: float, body: str = "hello") -> dict[str, str]:
    """An app whose build takes this long, never cached, and prints a line every tenth of a second."""
    dockerfile = SLOW_BUILD.format(tenths=round(seconds * 10)) + "\n"
    return app(body=body, Dockerfile=dockerfile, nonce=secrets.token_hex())
