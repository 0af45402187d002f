"""PHP repositories of several shapes, pushed and fetched."""

from __future__ import annotations

import subprocess
import threading
import time
import urllib.request

import pytest

from tests.box import Box

pytestmark = [pytest.mark.engine, pytest.mark.timeout(500)]

PLAIN = {
    "index.php": "<?php echo 'path ' . $_SERVER['REQUEST_URI'] . ' secure ' . ($_SERVER['HTTPS'] ?? 'off');",
    "about.php": "<?php error_log('about was asked for'); echo 'about';",
    "slow.php": "<?php touch('/tmp/slow'); sleep(2); echo 'slow';",
    "style.css": "body {}",
    ".env": "SECRET=1\n",
    ".well-known/x.txt": "known",
    "vendor/tool/eval.php": "<?php echo 'evaluated';",
}


def test_the_example_and_a_change_of_it(box: Box) -> None:
    repository = box.repository(example="php")
    pushed = box.push(repository, "php-example")
    assert pushed.status == 0, pushed
    assert "composer.json require: PHP ^8.2, so 8.4" in pushed.all
    assert "public/index.php: serving public/" in pushed.all
    assert box.get("php-example").text == "Hello from paasd, release v1\n"
    page = (repository.path / "src/Page.php").read_text()
    repository.commit(
        {"src/Page.php": page.replace("Hello", "Bonjour", 2).replace("namespace Bonjour", "namespace Hello")}
    )
    assert box.push(repository, "php-example").status == 0
    assert box.get("php-example", "/some/path").text == "Bonjour from paasd, release v2\n"


def test_plain_php_serves_no_secrets(box: Box) -> None:
    pushed = box.push(box.repository(PLAIN), "php-plain")
    assert pushed.status == 0, pushed
    assert box.get("php-plain", "/a/b?c=1").text == "path /a/b?c=1 secure off"
    assert box.get("php-plain", "/about.php").text == "about"
    assert box.get("php-plain", "/style.css").headers["Content-Type"] == "text/css"
    assert box.get("php-plain", "/.well-known/x.txt").text == "known"
    for path in ("/.env", "/.git/config", "/vendor/tool/eval.php", "/sub/../.env", "/%2eenv"):
        answer = box.get("php-plain", path)
        assert answer.status in (400, 404), (path, answer)
        assert "SECRET" not in answer.text
    assert "about was asked for" in box.ssh("logs", "php-plain").out
    stop_lets_requests_finish(box, "php-plain")


def stop_lets_requests_finish(box: Box, app: str) -> None:
    """In a container beside paasd's own, which would be started again."""
    image = next(c["Image"] for c in box.containers() if c["Labels"]["paasd.app-name"] == app)
    options = ["--init", "--user", "10001:10001", "--cap-drop", "ALL", "--label", f"paasd.instance={box.label}"]
    environment = ["--env", "TINI_KILL_PROCESS_GROUP=1", "--env", "PORT=5001"]
    name = docker("run", "--detach", *options, *environment, image, "/bin/sh", "-c", "exec serve-php")
    try:
        address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", name)
        answers: list[bytes] = []
        wait_for(f"http://{address}:5001/about.php")
        thread = threading.Thread(target=lambda: answers.append(fetch(f"http://{address}:5001/slow.php")))
        thread.start()
        while not docker("exec", name, "/bin/sh", "-c", "ls /tmp/slow || true"):
            time.sleep(0.05)
        docker("stop", "--time", "30", name)
        thread.join(30)
        assert answers == [b"slow"]
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    finally:
        docker("rm", "--force", name)


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        body: bytes = response.read()
        return body


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            fetch(url)
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")


def test_committed_packages_an_older_php_and_an_extension(box: Box) -> None:
    repository = box.repository(
        {
            "composer.json": '{"require": {"php": "~8.2.0", "ext-intl": "*", "acme/greet": "^1"}}',
            "vendor/autoload.php": "<?php function greet() { return 'vendored'; }",
            "web/index.php": "<?php require '../vendor/autoload.php';"
            " echo greet(), ' ', PHP_MAJOR_VERSION, '.', PHP_MINOR_VERSION, ' ', Normalizer::normalize(\"e\\u{301}\");",
            "Procfile": "web: heroku-php-nginx web/\n",
        }
    )
    pushed = box.push(repository, "php-vendored")
    assert pushed.status == 0, pushed
    assert "vendor/autoload.php: the committed packages are used" in pushed.all
    assert box.get("php-vendored").text == "vendored 8.2 é"


def test_what_is_wrong_is_said(box: Box) -> None:
    files = {"index.php": "<?php echo 1;", "composer.json": '{"require": {"acme/thing": "^1"}}'}
    lock = '{"packages": [], "packages-dev": [], "content-hash": "0"}'
    pushed = box.push(box.repository(files | {"composer.lock": lock}), "php-wrong")
    assert pushed.status != 0
    assert "composer.lock does not hold acme/thing: run `composer update acme/thing`" in pushed.all
    pushed = box.push(box.repository({"index.php": "", "composer.json": '{"require": {"php": "^7.4"}}'}), "php-wrong")
    assert pushed.status != 0
    assert "composer.json require asks for PHP '^7.4', which cannot be had here" in pushed.all
    assert "There are: 8.4, 8.2" in pushed.all
    checks = '{"healthchecks": {"web": [{"type": "startup", "name": "answers", "path": "/"}]}}'
    pushed = box.push(box.repository({"index.php": "<?php half(", "app.json": checks}), "php-wrong")
    assert pushed.status != 0
    assert "PHP Parse error" in pushed.all
