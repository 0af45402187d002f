"""What decides how an app is built: settings, the repository's files, and what changed since the last build."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.apps import DOCKERFILE
from tests.box import Box, docker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SERVER = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("ANSWER", pathlib.Path("answer.txt").read_text()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
PYTHON = {"app.py": SERVER, "requirements.txt": "", "answer.txt": "plain"}
NOTHING = "Nothing changed since build"


def test_an_app_in_a_folder_of_a_monorepo(box: Box) -> None:
    box.ssh("apps:create", "mono")
    assert "must be a path inside the repository" in box.ssh("builds:set", "mono", "root-dir", "../x").err
    box.ssh("builds:set", "mono", "root-dir", "apps/web/")
    files = {f"apps/web/{name}": text for name, text in PYTHON.items()} | {
        "index.html": "not this",
        "Procfile": "wrong",
    }
    pushed = box.push(box.repository(files), "mono")
    assert pushed.status == 0, pushed.err
    assert "root-dir: apps/web (builds:set)" in pushed.err
    assert box.get("mono").text == "plain"
    explained = json.loads(box.ssh("config:explain", "mono", "--json").out)
    assert explained["settings"] == [{"key": "root-dir", "value": "apps/web", "origin": "builds:set"}]
    assert explained["process_types"] == {"web": "python app.py"}

    box.ssh("builds:set", "mono", "root-dir", "apps/none")
    refused = box.push(box.repository(files | {"new": "1"}), "mono", "main", "--force")
    assert refused.status != 0 and "root-dir is 'apps/none', but the pushed commit holds no files there" in refused.err


def test_files_of_other_platforms_decide_and_settings_beat_them(box: Box) -> None:
    railway = '[deploy]\nstartCommand = "ANSWER=railway python app.py"\nnumReplicas = 2\n'
    repository = box.repository(PYTHON | {"railway.toml": railway})
    pushed = box.push(repository, "railway")
    assert pushed.status == 0, pushed.err
    assert "start-command: ANSWER=railway python app.py (railway.toml deploy.startCommand)" in pushed.err
    assert "not used: railway.toml: deploy.numReplicas" in pushed.err
    assert box.get("railway").text == "railway"
    box.ssh("builds:set", "railway", "start-command", "ANSWER=set", "python", "app.py")
    repository.commit({"x": "1"})
    assert box.push(repository, "railway").status == 0
    assert box.get("railway").text == "set"


def test_a_push_that_changes_nothing_watched_is_stored(box: Box) -> None:
    repository = box.repository(PYTHON)
    assert box.push(repository, "watching").status == 0
    box.ssh("builds:set", "watching", "watch-paths", "*.py", "/answer.txt")
    repository.commit({"README.md": "words"})
    stored = box.push(repository, "watching")
    assert stored.status == 0 and "Not deployed: nothing changed of what builds:set watches" in stored.err
    assert [b["status"] for b in json.loads(box.ssh("builds", "watching", "--json").out)] == ["cancelled", "succeeded"]
    assert len(json.loads(box.ssh("releases", "watching", "--json").out)) == 1
    repository.commit({"answer.txt": "changed"})
    assert box.push(repository, "watching").status == 0
    assert box.get("watching").text == "changed"


def test_the_same_source_is_not_built_again(box: Box) -> None:
    repository = box.repository(PYTHON)
    assert box.push(repository, "same").status == 0
    repository.commit({"answer.txt": "other"})
    assert NOTHING not in box.push(repository, "same").err
    repository.commit({"answer.txt": "plain"})
    again = box.push(repository, "same")
    assert again.status == 0 and f"{NOTHING} 1: using its image" in again.err
    assert box.get("same").text == "plain"
    info = json.loads(box.ssh("builds:info", "same", "--json").out)
    assert info["image"].endswith(":b1") and info["steps"] == 0 and "build" not in info["phases"]
    assert info["versions"]["python"] and info["image_size"] > 1e6

    box.ssh("builds:cache:clear", "same")
    repository.commit({"README.md": "1"})
    built = box.push(repository, "same")
    assert built.status == 0 and NOTHING not in built.err


@pytest.mark.parametrize("dockerfile", [False, True])
def test_a_failing_test_rejects_the_push(box: Box, dockerfile: bool) -> None:
    name = "tested-docker" if dockerfile else "tested"
    files = PYTHON | {"Dockerfile": DOCKERFILE, "Procfile": "web: python3 app.py\n"} if dockerfile else PYTHON
    manifest = json.dumps(
        {"scripts": {"test": 'echo testing; grep -q plain answer.txt && test ${#TOKEN} = 6 && test -z "$OTHER"'}}
    )
    repository = box.repository(files | {"app.json": manifest})
    box.ssh("apps:create", name)
    box.ssh("config:set", "--no-restart", name, "TOKEN=s3cret", "OTHER=0ther")
    refused = box.push(repository, name)
    assert refused.status != 0 and "failed with exit code" in refused.err, refused.err
    box.ssh("builds:set", name, "build-env", "TOKEN")
    pushed = box.push(repository, name)
    assert pushed.status == 0, pushed.err
    assert "Testing: echo testing" in pushed.err and "s3cret" not in pushed.err
    assert unnamed_images(box) == []
    repository.commit({"answer.txt": "broken"})
    refused = box.push(repository, name)
    assert refused.status != 0 and "testing" in refused.err
    assert box.get(name).text == "plain"


def test_app_json_says_which_config_vars_are_needed(box: Box) -> None:
    env = {
        "NEEDED": {"required": True, "description": "the key of the bank"},
        "ANSWER": "from app.json",
        "SECRET": {"generator": "secret"},
    }
    repository = box.repository(PYTHON | {"app.json": json.dumps({"env": env, "formation": {"web": {"quantity": 2}}})})
    refused = box.push(repository, "needy")
    assert refused.status != 0
    assert "app.json requires config vars that are not set: NEEDED (the key of the bank)" in refused.err
    assert "config:set --no-restart needy NEEDED=" in refused.err
    box.ssh("config:set", "--no-restart", "needy", "NEEDED=1")
    assert box.push(repository, "needy").status == 0
    assert box.get("needy").text == "from app.json"
    config = json.loads(box.ssh("config:show", "needy", "--json").out)
    assert len(config["SECRET"]) == 64
    assert len(json.loads(box.ssh("ps:report", "needy", "--json").out)["instances"]) == 2
    repository.commit({"x": "1"})
    assert box.push(repository, "needy").status == 0
    assert json.loads(box.ssh("config:show", "needy", "--json").out) == config


def test_it_is_told_who_decides_how_many_instances_there_are(box: Box) -> None:
    formation = {"web": {"quantity": 2}, "worker": {"quantity": 1}}
    procfile = "web: python app.py\nworker: sleep 3600\nmail: sleep 3600\nclock: sleep 3600\n"
    files = PYTHON | {"Procfile": procfile, "app.json": json.dumps({"formation": formation})}
    assert box.push(box.repository(files), "counted").status == 0

    def told() -> dict[str, tuple[int, str]]:
        found = json.loads(box.ssh("config:explain", "counted", "--json").out)["instances"]
        return {i["process_type"]: (i["count"], i["origin"]) for i in found}

    assert told() == {
        "web": (2, "app.json formation"),
        "worker": (1, "app.json formation"),
        "mail": (0, "default"),
        "clock": (0, "default"),
    }
    assert box.ssh("ps:scale", "counted", "web=1", "mail=1").status == 0
    assert box.ssh("autoscale:set", "counted", "clock", "min=1", "max=3", "cpu=70").status == 0
    assert told() | {"clock": (0, "")} == {
        "web": (1, "ps:scale, over app.json: 2"),
        "worker": (1, "app.json formation"),
        "mail": (1, "ps:scale"),
        "clock": (0, ""),
    }
    assert told()["clock"][1] == "autoscaling from 1 to 3"
    report = json.loads(box.ssh("ps:report", "counted", "--json").out)
    assert {name: report["scale"][name] for name in ("web", "worker", "mail")} == {"web": 1, "worker": 1, "mail": 1}
    live = {i["instance"] for i in report["instances"] if i["duty"] == "live"}
    assert {"web.1", "worker.1", "mail.1"} <= live and "web.2" not in live, "formation still speaks for the worker"
    assert "ps:scale, over app.json: 2" in box.ssh("config:explain", "counted").out


def test_a_dockerfile_gets_arguments_and_a_stage(box: Box) -> None:
    dockerfile = (
        f"{DOCKERFILE.replace('paasd/python:3.13', 'paasd/python:3.13 AS made')}ARG WORD=none\n"
        'RUN echo $WORD > answer.txt\nCMD ["python3", "app.py"]\nFROM made AS broken\nRUN false\n'
    )
    files = {"app.py": SERVER, "answer.txt": "", "docker/Web": dockerfile}
    box.ssh("apps:create", "arguments")
    for key, value in (("dockerfile", "docker/Web"), ("target", "made"), ("build-args", "WORD=given")):
        assert box.ssh("builds:set", "arguments", key, value).status == 0
    pushed = box.push(box.repository(files), "arguments")
    assert pushed.status == 0, pushed.err
    assert box.get("arguments").text == "given\n"
    assert "must be words such as" in box.ssh("builds:set", "arguments", "build-args", "A-B=1").err


def unnamed_images(box: Box) -> list[str]:
    """After clean-up has looked twice."""
    assert box.ssh("cleanup").status == box.ssh("cleanup").status == 0
    filters = json.dumps({"dangling": ["true"], "label": [f"paasd.instance={box.label}"]})
    return [image["Id"] for image in docker("GET", f"/images/json?filters={quote(filters)}")]


FIXED = SERVER.replace('int(os.environ["PORT"])', "8123")


def test_an_app_may_have_a_port_of_its_own(box: Box) -> None:
    dockerfile = DOCKERFILE + 'EXPOSE 8123/tcp 53/udp\nCMD ["python3", "app.py"]\n'
    repository = box.repository({"app.py": FIXED, "answer.txt": "fixed", "Dockerfile": dockerfile})
    pushed = box.push(repository, "fixed")
    assert pushed.status == 0 and "Port 8123: the Dockerfile's EXPOSE" in pushed.err, pushed.err
    assert box.get("fixed").text == "fixed"
    box.ssh("config:set", "fixed", "ANSWER=again")
    assert box.get("fixed").text == "again"

    repository = box.repository(PYTHON | {"app.py": FIXED})
    assert box.ssh("apps:create", "ported").status == 0
    assert box.ssh("deploy:set", "ported", "start-timeout", "10s").status == 0
    refused = box.push(repository, "ported")
    assert refused.status != 0 and "is listening on 8123, expected $PORT=5000" in refused.err
    assert "ports:set ported 8123" in refused.err
    assert box.ssh("ports:set", "ported", "99999").status != 0
    assert box.ssh("ports:set", "ported", "8123").status == 0
    assert box.push(repository, "ported").status == 0
    assert box.get("ported").text == "plain"


def test_a_builder_can_be_chosen(box: Box) -> None:
    files = PYTHON | {"Dockerfile": "FROM nowhere.invalid/image\n"}
    box.ssh("apps:create", "chosen")
    box.ssh("builds:set", "chosen", "builder", "cobol")
    refused = box.push(box.repository(files), "chosen")
    assert refused.status != 0 and "no buildpack is called cobol" in refused.err
    box.ssh("builds:set", "chosen", "builder", "buildpacks")
    pushed = box.push(box.repository(files), "chosen")
    assert pushed.status == 0 and "builder: buildpacks (builds:set)" in pushed.err, pushed.err
    assert box.get("chosen").text == "plain"


def test_several_versions_are_tried_side_by_side(box: Box) -> None:
    script = "python3 -c 'import sys; print(sys.version); sys.exit(sys.version_info < (3, 12))'"
    repository = box.repository(
        PYTHON | {"app.json": json.dumps({"scripts": {"test": script}}), ".python-version": "3.13"}
    )
    assert box.push(repository, "tried").status == 0
    done = box.ssh("builds:matrix", "tried", "--python", "3.11,3.13,2.7", timeout=250)
    assert done.status == 1
    table = {line.split()[0]: line for line in done.out.splitlines() if line and not line.startswith("[")}
    assert "failed with exit code 1" in table["3.11"] and " passed " in table["3.13"] and "2.7" in table["2.7"], (
        done.out
    )
    assert "[3.13] -----> Testing:" in done.out
    assert unnamed_images(box) == []
    assert len(box.json("builds", "tried")) == 1 and len(box.json("releases", "tried")) == 1
    assert "name the versions once" in box.ssh("builds:matrix", "tried").err
