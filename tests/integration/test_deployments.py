"""How releases go live: phases, scripts, strategies, locks, windows, starting again, and looking after them."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Iterator

import pytest

from tests.apps import CRASHES_WHEN_ASKED, app
from tests.box import Box, Repository, docker, eventually

pytestmark = pytest.mark.engine

_SETTINGS = "[run]\ndrain = 0.5\nstream_drain = 1.0\nstop_timeout = 2\n"


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box(_SETTINGS).start()
    yield box
    box.close()


@pytest.fixture
def name(box: Box, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"a{zlib.crc32(request.node.name.encode())}"
    yield name
    box.ssh("apps:destroy", name, "--force")


def ok(box: Box, *words: str) -> str:
    done = box.ssh(*words)
    assert done.status == 0, (words, done.all)
    return done.out


def pushed(box: Box, name: str, files: dict[str, str]) -> Repository:
    repository = box.repository(files)
    done = box.push(repository, name)
    assert done.status == 0, done.all
    return repository


def push_again(box: Box, name: str, repository: Repository, files: dict[str, str]) -> None:
    repository.commit(files)
    done = box.push(repository, name)
    assert done.status == 0, done.all


def deployment(box: Box, name: str) -> dict[str, object]:
    found: dict[str, object] = box.json("deployments:info", name)
    return found


def phases(box: Box, name: str) -> list[str]:
    return [phase["phase"] for phase in deployment(box, name)["phases"]]  # type: ignore[attr-defined]


def in_phase(box: Box, name: str, phase: str) -> None:
    """Wait until the newest deployment goes through this phase."""

    def is_so() -> bool:
        found = deployment(box, name)
        return (found["status"], found["phase"]) == ("running", phase)

    eventually(is_so)


# phases and scripts


def test_a_push_goes_through_all_phases_and_they_are_timed(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    assert phases(box, name) == [
        *("requested", "building", "releasing", "starting", "checking", "switching", "live"),
    ]
    push_again(box, name, repository, app(body="second"))
    eventually(lambda: phases(box, name)[-2:] == ["draining", "live"])
    found = deployment(box, name)
    assert (found["status"], found["release"], found["strategy"]) == ("succeeded", "v2", "rolling")
    assert all(p["seconds"] > 0 for p in found["phases"][:-1])  # type: ignore[index]
    printed = ok(box, "deployments:info", name)
    assert "checking" in printed and "Strategy" in printed
    kinds = [event["type"] for event in box.json("events", name)]
    assert kinds.index("deployment.requested") < kinds.index("deployment.phase") < kinds.index("deployment.completed")


def test_a_push_that_is_not_built_is_a_deployment_that_failed_while_building(box: Box, name: str) -> None:
    repository = box.repository({"README": "nothing to run"})
    assert box.push(repository, name).status != 0
    found = deployment(box, name)
    assert (found["status"], found["release"]) == ("failed", None)
    assert phases(box, name) == ["requested", "building"]
    refused = box.ssh("deploys:retry", name)
    assert refused.status == 1 and "before there was a release" in refused.err and "git push" in refused.err


def scripts(fail: str = "") -> str:
    def script(word: str) -> str:
        return f"echo ran {word} of $PAASD_RELEASE; " + ("exit 3" if word == fail else "true")

    dokku = {"predeploy": script("predeploy"), "postdeploy": script("always")}
    return json.dumps({"scripts": {"postdeploy": script("once"), "dokku": dokku}})


def ran(text: str) -> list[str]:
    """What of `scripts()` and the release task printed, in order."""
    words = [line.replace("remote:", "").split() for line in text.splitlines()]
    return [line[1] for line in words if line[:1] == ["ran"] and line[2:3] == ["of"]]


_PROCFILE = "web: python3 -u app.py\nrelease: echo ran release of $PAASD_RELEASE\n"


def test_scripts_of_app_json_run_in_order_and_the_first_ones_once(box: Box, name: str) -> None:
    repository = box.repository(app(Procfile=_PROCFILE, app__json=scripts()))
    first = box.push(repository, name)
    assert first.status == 0, first.all
    assert ran(first.all) == ["predeploy", "release", "once", "always"]
    assert "of v1" in first.all
    repository.commit({"other": "file"})
    second = box.push(repository, name)
    assert ran(second.all) == ["predeploy", "release", "always"], second.all


@pytest.mark.parametrize("fail", ["predeploy", "once", "always"])
def test_a_failing_script_leaves_everything_as_it_was(box: Box, name: str, fail: str) -> None:
    repository = box.repository(app(app__json=scripts(fail)))
    refused = box.push(repository, name)
    assert refused.status != 0
    assert "exited with status 3" in refused.all and "nothing was changed" in refused.all
    assert box.get(name).status == 503
    assert box.containers() == [] or eventually(lambda: not containers_of(box, name))
    # What did not succeed is not taken as done.
    repository.commit({"app.json": scripts()})
    mended = box.push(repository, name)
    assert mended.status == 0 and "once" in ran(mended.all), mended.all


def containers_of(box: Box, name: str) -> list[str]:
    return [c["Names"][0] for c in box.containers() if f"-{name}-" in c["Names"][0]]


def test_a_script_that_takes_too_long_is_ended(box: Box, name: str) -> None:
    ok(box, "apps:create", name)
    ok(box, "deploy:set", name, "script-timeout", "1s")
    slow = json.dumps({"scripts": {"postdeploy": "sleep 60"}})
    refused = box.push(box.repository(app(app__json=slow)), name)
    assert refused.status != 0 and "took longer than 1 s" in refused.all and "script-timeout" in refused.all


# strategies


class Overlap:
    """Counts the running containers of an app all the time, as the engine sees them."""

    def __init__(self, box: Box, name: str) -> None:
        self._box, self._name = box, name
        self.most, self.least = 0, 99
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Overlap:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            running = [c for c in self._box.containers() if c["State"] == "running"]
            count = sum(f"-{self._name}-" in c["Names"][0] for c in running)
            self.most, self.least = max(self.most, count), min(self.least, count)
            time.sleep(0.02)


def test_recreate_never_runs_old_and_new_at_once(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    ok(box, "deploy:set", name, "strategy", "recreate")
    with Overlap(box, name) as seen:
        push_again(box, name, repository, app(body="second"))
    assert (seen.most, seen.least) == (1, 0)
    assert box.get(name).text == "second"
    assert deployment(box, name)["strategy"] == "recreate"
    # Scaling up does not stop what runs.
    with Overlap(box, name) as seen:
        ok(box, "ps:scale", name, "web=2")
    assert (seen.most, seen.least) == (2, 1)


def test_recreate_brings_the_old_release_back_when_the_new_one_fails(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    ok(box, "deploy:set", name, "strategy", "recreate")
    repository.commit(app("sys.exit(1)"))
    with Overlap(box, name) as seen:
        refused = box.push(repository, name)
    assert refused.status != 0 and "Starting v1 again" in refused.all
    assert seen.most == 1
    assert box.get(name).text == "hello"
    box.settles()


class Visitors:
    """Ask for an app ten times a second through the edge; remembers the answers."""

    def __init__(self, box: Box, name: str) -> None:
        self._box, self._name = box, name
        self.answers: list[tuple[int, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Visitors:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            answer = self._box.get(self._name)
            self.answers.append((answer.status, answer.text))
            time.sleep(0.02)

    def count(self, text: str) -> int:
        return sum(answer == (200, text) for answer in self.answers)


def test_a_canary_gets_its_share_and_is_promoted_by_hand(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    ok(box, "canary:steps", name, "20,100", "--time", "10m")
    ok(box, "deploy:set", name, "canary-by", "header:X-Canary")
    nothing = box.ssh("canary:promote", name)
    assert nothing.status == 1 and "no canary" in nothing.err
    repository.commit(app(body="second"))
    push = box.begin_push(repository, name)
    in_phase(box, name, "canary")
    answers = [box.get(name).text for _ in range(100)]
    assert 18 <= answers.count("second") <= 22, "each worker of Nginx takes its own turns"
    for wish, text in (("always", "second"), ("never", "hello")):
        assert {box.get(name, headers={"X-Canary": wish}).text for _ in range(10)} == {text}
    ok(box, "canary:promote", name)
    out, _ = push.communicate(timeout=60)
    assert push.returncode == 0, out
    assert "20 % of the requests" in out and "promoted by hand" in out
    assert {box.get(name).text for _ in range(10)} == {"second"}
    box.settles()


def test_a_good_canary_walks_through_its_steps_and_drops_nothing(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    ok(box, "canary:steps", name, "30,60", "--time", "1s")
    repository.commit(app(body="second"))
    with Visitors(box, name) as visitors:
        done = box.push(repository, name)
    assert done.status == 0, done.all
    assert "30 % of the requests" in done.all and "60 % of the requests" in done.all
    assert visitors.count("hello") and visitors.count("second")
    assert visitors.count("hello") + visitors.count("second") == len(visitors.answers)
    assert phases(box, name)[5:7] == ["canary", "switching"]
    # What was live before goes back at once.
    back = ok(box, "rollback", name)
    assert "Canary" not in back and box.get(name).text == "hello"


def test_a_bad_canary_is_given_up_by_itself(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    ok(box, "canary:steps", name, "50,100", "--time", "60s")
    repository.commit(app(body="broken", status=500) | {"app.json": json.dumps(_ANY_ANSWER)})
    with Visitors(box, name) as visitors:
        refused = box.push(repository, name)
    assert refused.status != 0
    assert "the canary was given up" in refused.all and "5xx" in refused.all
    assert (500, "broken") in visitors.answers
    assert {box.get(name).text for _ in range(10)} == {"hello"}
    found = deployment(box, name)
    assert (found["status"], found["phase"]) == ("failed", "canary")
    box.settles()


_ANY_ANSWER: dict[str, object] = {"healthchecks": {"web": [{"type": "startup", "uptime": 1}]}}


def test_a_canary_that_crashes_is_given_up_and_one_can_be_aborted(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    ok(box, "canary:steps", name, "10,100", "--time", "60s")
    repository.commit(app(CRASHES_WHEN_ASKED, body="crashing"))
    push = box.begin_push(repository, name)
    in_phase(box, name, "canary")
    eventually(lambda: box.get(name, "/crash").status != 200)
    out, _ = push.communicate(timeout=60)
    assert push.returncode != 0 and "web.1 crashed" in out, out
    repository.commit(app(body="third"))
    push = box.begin_push(repository, name)
    in_phase(box, name, "canary")
    ok(box, "canary:abort", name)
    out, _ = push.communicate(timeout=60)
    assert push.returncode != 0 and "was aborted" in out
    assert {box.get(name).text for _ in range(10)} == {"hello"}


# settings, locks and windows


def test_settings_are_checked_and_told(box: Box, name: str) -> None:
    ok(box, "apps:create", name)
    for key, value, said in (
        ("strategy", "yolo", "rolling"),
        ("drain", "soon", "30s"),
        ("drain", "2d", "3600 s"),
        ("colour", "red", "There are: strategy"),
        ("windows", "always", "Mon-Fri 09:00-17:00"),
        ("canary-steps", "50,20", "growing"),
    ):
        refused = box.ssh("deploy:set", name, key, value)
        assert refused.status == 1 and said in refused.err, refused.err
    ok(box, "deploy:set", name, "drain", "2m")
    ok(box, "deploy:set", name, "strategy", "Blue-Green")
    found = box.json("deploy:report", name)
    assert (found["drain"]["value"], found["drain"]["origin"]) == ("120", "deploy:set")
    assert (found["strategy"]["value"], found["watch"]["origin"]) == ("rolling", "default")
    ok(box, "deploy:set", name, "drain")
    assert box.json("deploy:report", name)["drain"]["value"] == "0.5"


def test_a_locked_app_takes_nothing_new(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    ok(box, "config:set", name, "A=1")
    ok(box, "apps:lock", name, "the", "database", "moves")
    repository.commit(app(body="second"))
    refused = box.push(repository, name)
    assert refused.status != 0
    assert "is locked: the database moves" in refused.all and f"apps:unlock {name}" in refused.all
    for words in (("rollback", name), ("config:set", name, "A=2"), ("builds:deploy", name, "1")):
        done = box.ssh(*words)
        assert done.status == 1 and "is locked" in done.err, (words, done.all)
    assert ok(box, "config:get", name, "A") == "1\n"
    assert "the database moves" in ok(box, "apps:info", name)
    ok(box, "ps:restart", name)
    ok(box, "apps:unlock", name)
    assert box.push(repository, name).status == 0


def test_pushes_outside_the_windows_are_refused_with_the_time_of_the_next(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    weekday = time.gmtime(time.time() + 3 * 86400)
    ok(box, "deploy:set", name, "windows", time.strftime("%a 09:00-17:00 UTC", weekday))
    repository.commit(app(body="second"))
    refused = box.push(repository, name)
    assert refused.status != 0
    assert time.strftime("%A %Y-%m-%d 09:00 UTC", weekday) in refused.all and "-o ignore-windows" in refused.all
    assert box.push(repository, name, "main", "-o", "ignore-windows").status == 0
    assert box.get(name).text == "second"


# starting again


def test_a_failed_deployment_is_retried_without_a_build(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    repository.commit(app(app__json=json.dumps({"scripts": {"dokku": {"predeploy": 'test -n "$KEY"'}}}), body="two"))
    assert box.push(repository, name).status != 0
    ok(box, "config:set", name, "--no-restart", "KEY=1")
    again = box.ssh("deploys:retry", name)
    assert again.status != 0, "the release has the config vars it was made with"
    assert "Deploying v2 again" in again.out
    assert len(box.json("builds", name)) == 2
    done = ok(box, "builds:deploy", name, "2")
    assert "is live" in done and box.get(name).text == "two"
    assert len(box.json("builds", name)) == 2
    refused = box.ssh("deploys:retry", name)
    assert refused.status == 1 and "has not failed" in refused.err


def test_an_old_build_is_deployed_with_the_present_config(box: Box, name: str) -> None:
    answer = (
        "def answer(self):\n    body = (os.environ.get('WORD', 'none') + ' {word}').encode()\n"
        "    self.send_response(200)\n    self.send_header('Content-Length', str(len(body)))\n"
        "    self.end_headers()\n    self.wfile.write(body)\n"
    )
    first = answer.format(word="one") + "Handler.do_GET = answer\nserve()"
    repository = pushed(box, name, app(first))
    push_again(box, name, repository, app(first.replace("one", "two")))
    ok(box, "config:set", name, "WORD=new")
    assert box.get(name).text == "new two"
    ok(box, "builds:deploy", name, "1")
    assert box.get(name).text == "new one"
    assert box.json("releases", name)[0]["description"] == "Deploy build 1 again"
    missing = box.ssh("builds:deploy", name, "77")
    assert missing.status == 1 and f"builds {name}" in missing.err
    lines = box.json("releases:diff", name, "v2", "v4")["changes"]
    assert any(line.startswith("image: ") for line in lines)
    assert "config var WORD: added" in lines, "and not its value"


def test_a_change_of_config_vars_can_be_cancelled_before_its_switch(box: Box, name: str) -> None:
    pushed(box, name, app("time.sleep(float(os.environ.get('SLOW', '0'))); serve()"))
    asked: list[int] = []
    change = threading.Thread(target=lambda: asked.append(box.ssh("config:set", name, "SLOW=30").status))
    change.start()
    in_phase(box, name, "checking")
    ok(box, "deploys:cancel", name)
    change.join(30)
    assert asked == [1]
    found = deployment(box, name)
    assert (found["status"], found["phase"]) == ("cancelled", "checking")
    assert box.get(name).text == "hello"
    box.settles()
    nothing = box.ssh("deploys:cancel", name)
    assert nothing.status == 1 and "nothing" in nothing.err


# looking after what is live


def test_a_release_that_crashes_soon_after_its_switch_is_rolled_back(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    push_again(box, name, repository, app(CRASHES_WHEN_ASKED, body="bad"))
    assert deployment(box, name)["watched_until"]
    assert box.get(name, "/crash").status != 200
    eventually(lambda: box.json("releases", name)[0]["description"] == "Rollback to v1", 60)
    eventually(lambda: box.get(name).text == "hello")
    listed = box.json("deployments", name)
    assert [(d["release"], d["status"]) for d in listed] == [("v3", "succeeded"), ("v2", "failed"), ("v1", "succeeded")]
    assert "rolled back: web.1 crashed" in listed[1]["reason"], listed
    # Nobody goes back to the bad one by accident.
    back = box.ssh("rollback", name)
    assert back.status == 0 and "Rolling back to v1" in back.out, back.all


def test_a_release_that_answers_with_errors_is_rolled_back(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    bad = app("threading.Timer(1, lambda: globals().update(status=500)).start(); serve()", body="bad")
    bad["app.py"] = bad["app.py"].replace("self.send_response(200)", "self.send_response(globals().get('status', 200))")
    push_again(box, name, repository, bad)

    def asked() -> bool:
        for _ in range(20):
            box.get(name)
        return bool(box.json("releases", name)[0]["description"] == "Rollback to v1")

    eventually(asked, 60)
    eventually(lambda: box.get(name).status == 200)
    assert "were answered with 5xx" in box.json("deployments", name)[1]["reason"]


def test_errors_before_the_first_look_at_a_release_count_as_its_own(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    bad = app(body="bad")
    bad["app.py"] = bad["app.py"].replace("self.send_response(200)", "self.send_response(500)")
    bad["app.json"] = '{"healthchecks": {"web": [{"type": "startup", "uptime": 1}]}}'
    push_again(box, name, repository, bad)
    assert {box.get(name).status for _ in range(60)} == {500}, "and none afterwards"
    eventually(lambda: box.json("releases", name)[0]["description"] == "Rollback to v1", 60)
    eventually(lambda: box.get(name).status == 200)


def test_a_release_is_left_alone_when_nobody_watches(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    ok(box, "deploy:set", name, "watch", "0")
    push_again(box, name, repository, app(CRASHES_WHEN_ASKED, body="bad"))
    assert deployment(box, name)["watched_until"] is None
    assert box.get(name, "/crash").status != 200

    def restarts() -> int:
        found = [c["Id"] for c in box.containers() if f"-{name}-v2-" in c["Names"][0]]
        return int(docker("GET", f"/containers/{found[0]}/json")["RestartCount"])

    eventually(lambda: restarts() >= 3, 60)
    time.sleep(4)  # with a watch, it would have looked meanwhile
    assert box.json("releases", name)[0]["version"] == "v2"


def test_watching_goes_on_after_a_restart_of_the_daemon(box: Box, name: str) -> None:
    repository = pushed(box, name, app())
    push_again(box, name, repository, app(CRASHES_WHEN_ASKED, body="bad"))
    box.kill()
    box.start()
    assert box.get(name, "/crash").status != 200
    eventually(lambda: box.json("releases", name)[0]["description"] == "Rollback to v1", 60)
