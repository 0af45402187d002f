"""cache:* and what they are for, as somebody types them."""

from __future__ import annotations

import pytest

from tests.apps import DOCKERFILE
from tests.box import Box

pytestmark = pytest.mark.engine

_SERVER = """
import http.server, os, pathlib

class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Handler.asked += 1
        known = self.path in ("/", "/news", f"/assets/app-{self.release}.js")
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "text/javascript" if self.path.endswith("js") else "text/html")
        if not self.path.endswith("js"):
            self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(f"release {self.release}, answer {Handler.asked}".encode())

    release = pathlib.Path("release").read_text()

http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


def files(release: str) -> dict[str, str]:
    return {
        "Dockerfile": DOCKERFILE,
        "Procfile": "web: python3 -u app.py\n",
        "app.py": _SERVER,
        "release": release,
    }


def test_answers_are_kept_purged_and_counted(box: Box) -> None:
    name, old, new = "kept", "0a1b2c3d", "4e5f6a7b"
    repository = box.repository(files(old))
    assert box.push(repository, name).status == 0
    refused = box.ssh("cache:purge", name)
    assert refused.status == 1 and f"edge:set {name} cache on" in refused.err
    assert f"off; switch it on with: edge:set {name} cache on" in box.ssh("cache:report", name).out
    assert box.ssh("edge:set", name, "cache", "on").status == 0
    first = box.get(name).text
    assert box.get(name).text == first
    news, file = box.get(name, "/news").text, box.get(name, f"/assets/app-{old}.js").text
    found = box.json("cache:report", name)
    assert (found["on"], found["hits"], found["misses"], found["ratio"]) == (True, 1, 3, 0.25)
    assert "25.0% of 4 requests" in box.ssh("cache:report", name).out

    assert "anew for /news" in box.ssh("cache:purge", name, "/news").out
    assert box.get(name, "/news").text != news and box.get(name).text == first
    assert "anew for everything" in box.ssh("cache:purge", name).out
    assert box.get(name).text != first
    assert [each["path"] for each in box.json("cache:report", name)["purges"]] == ["/*"]
    odd = box.ssh("cache:purge", name, "news")
    assert odd.status == 1 and "A path begins with /" in odd.err
    assert box.get(name, f"/assets/app-{old}.js").text != file
    box.settles()

    repository.commit(files(new))
    assert box.push(repository, name).status == 0
    assert new in box.get(name).text, "a new release begins with pages of its own"
    assert box.get(name, f"/assets/app-{old}.js").status == 200, "pages of the old one find their files"
    assert box.get(name, "/assets/app-99999aaa.js").status == 404
    assert box.ssh("apps:destroy", name, "--force").status == 0
