"""Plans of the PHP buildpack."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paasd.build.buildpacks import Buildpacks
from paasd.build.plan import Plan, Settings
from paasd.errors import SourceRejected
from tests.unit.test_buildpacks import DEBIAN, ROOT, Repository

BASES = {"php": "paasd/php:8.4", "php-build": "paasd/php-build:8.4"}
DUMP = "composer dump-autoload --no-dev --optimize"
INSTALL = "composer install --no-dev --no-progress --prefer-dist --optimize-autoloader"


@pytest.fixture(scope="module")
def packs() -> Buildpacks:
    return Buildpacks(ROOT)


def plan(packs: Buildpacks, files: dict[str, str], **settings: Any) -> Plan:
    types = ("web",) if "web:" in files.get("Procfile", "") else None
    chosen = Settings(process_types=types, **settings)
    return packs.plan(Repository(files), 5000, wanted="php", settings=chosen, suites=DEBIAN)


def composer(**data: Any) -> dict[str, str]:
    return {"composer.json": json.dumps(data), "public/index.php": ""}


@pytest.mark.parametrize(
    ("constraint", "version"),
    [
        ("^8.1", "8.4"),
        (">=8.1", "8.4"),
        ("~8.2.0", "8.2"),
        ("~8.1", "8.4"),
        ("8.2.*", "8.2"),
        ("8.2.7", "8.2"),
        ("^7.4 || ^8.0", "8.4"),
        ("^7.4|^8.0,<8.3", "8.2"),
        (">= 8.1 < 8.4", "8.2"),
        ("8.0 - 8.2", "8.2"),
        ("*", "8.4"),
        ("^8", "8.4"),
        ("!=8.4", "8.2"),
        (">=8.2.0-dev", "8.4"),
    ],
)
def test_composer_json_chooses_the_php(packs: Buildpacks, constraint: str, version: str) -> None:
    made = plan(packs, composer(require={"php": constraint}))
    assert made.versions == {"php": version}
    assert made.bases == (f"php@{version}", f"php-build@{version}")
    assert plan(packs, composer(require={"php": constraint}), version="8.2").versions == {"php": "8.2"}
    pinned = composer(require={"php": "^8.1"}, config={"platform": {"php": "8.2.1"}})
    assert plan(packs, pinned).versions == {"php": "8.2"}


@pytest.mark.parametrize("constraint", ["^7.4", "~8.1.0", "<8.2", ">=8.5", "8.3.*", "latest"])
def test_a_php_that_cannot_be_had_is_refused(packs: Buildpacks, constraint: str) -> None:
    with pytest.raises(SourceRejected) as caught:
        plan(packs, composer(require={"php": constraint}))
    assert caught.value.detail == f"composer.json require asks for PHP '{constraint}', which cannot be had here"
    assert caught.value.hint == "There are: 8.4, 8.2. Ask for one of them."


@pytest.mark.parametrize(
    ("files", "root"),
    [
        ({"index.php": ""}, ""),
        ({"public/index.php": "", "index.php": ""}, "public"),
        ({"web/index.php": ""}, "web"),
        ({"composer.json": '{"extra": {"public-dir": "site/"}}', "site/index.php": ""}, "site"),
        ({"index.php": "", "docs/x.php": "", "Procfile": "web: vendor/bin/heroku-php-nginx -C docs/\n"}, "docs"),
        ({"index.php": "", "Procfile": "web: heroku-php-apache2\n"}, ""),
    ],
)
def test_the_web_root(packs: Buildpacks, files: dict[str, str], root: str) -> None:
    made = plan(packs, files)
    assert made.values["web_root"] == root
    assert made.process_types == (() if "Procfile" in files else made.process_types)
    config = packs.render(made, BASES, "app1", "trixie")["nginx.conf"]
    assert f"root /app{'/' + root if root else ''};" in config
    assert ("composer" in config) is (root == "")


def test_web_roots_that_cannot_be_served_are_refused(packs: Buildpacks) -> None:
    files = {"index.php": "", "a b/x": ""}
    for root in ("../x", "a b", "none", "a;b"):
        with pytest.raises(SourceRejected, match="setting: "):
            plan(packs, files, output_dir=root)
    with pytest.raises(SourceRejected, match="nothing says what to serve"):
        plan(packs, {"composer.json": "{}"})
    with pytest.raises(SourceRejected, match="is not valid JSON"):
        plan(packs, {"composer.json": "{"})
    assert plan(packs, {"composer.json": "{}", "Procfile": "web: php x.php"}).process_types == ()
    assert plan(packs, {"composer.json": "{}"}, start_command="php x.php").process_types[0].command == "php x.php"


def test_extensions_become_packages(packs: Buildpacks) -> None:
    files = composer(require={"ext-Intl": "*", "ext-json": "*", "ext-pdo_mysql": "*"})
    lock = {"packages": [{"name": "a/b", "require": {"ext-gd": "*", "php": "^8"}}], "packages-dev": [{"name": "c"}]}
    made = plan(packs, {**files, "composer.lock": json.dumps(lock)}, packages=("ffmpeg",))
    assert made.packages == ("php8.4-gd", "php8.4-intl", "ffmpeg")
    with pytest.raises(SourceRejected, match=r"requires the extension 'swoole', which PHP 8\.4"):
        plan(packs, composer(require={"ext-swoole": "*"}))
    with pytest.raises(SourceRejected, match="extension 'imap'"):
        plan(packs, composer(require={"ext-imap": "*"}))
    assert plan(packs, composer(require={"ext-imap": "*", "php": "8.2.*"})).packages == ("php8.2-imap",)


def test_packages_are_installed_before_the_code(packs: Buildpacks) -> None:
    files = composer() | {"composer.json": '{"name": "x"}', "composer.lock": "{}"}
    text = packs.render(plan(packs, files), BASES, "app1", "trixie")["Dockerfile"]
    assert text.index("--no-scripts --no-autoloader") < text.index("COPY app/ /app/") < text.index(DUMP)
    for waits in ({"scripts": {"post-install-cmd": "x"}}, {"config": {"allow-plugins": {"a/b": True}}}):
        waiting = plan(packs, files | {"composer.json": json.dumps(waits)})
        assert waiting.values["commands"] == [INSTALL]
    dumps = {"scripts": {"post-autoload-dump": "x", "test": []}, "config": {"allow-plugins": {}}}
    assert plan(packs, files | {"composer.json": json.dumps(dumps)}).values["commands"] == [DUMP]
    local = files | {"composer.json": '{"repositories": [{"type": "path", "url": "lib"}]}'}
    assert plan(packs, local).values["dependency_files"] == []
    assert plan(packs, local).values["commands"] == [INSTALL]
    committed = plan(packs, files | {"vendor/autoload.php": ""})
    assert (committed.bases, committed.values["commands"]) == (("php@8.4",), [])
    made = plan(packs, files, install_command="make deps", build_command="make")
    assert made.values["commands"] == ["make deps", "make"]


def test_frameworks(packs: Buildpacks) -> None:
    symfony = plan(packs, composer(name="x") | {"config/bundles.php": ""})
    assert "ENV APP_ENV=prod APP_DEBUG=0\n" in packs.render(symfony, BASES, "a", "trixie")["Dockerfile"]
    laravel = plan(packs, composer(name="x") | {"artisan": ""})
    assert "ENV LOG_CHANNEL=stderr\n" in packs.render(laravel, BASES, "a", "trixie")["Dockerfile"]
    assert any("APP_KEY" in reason for reason in laravel.reasons)
