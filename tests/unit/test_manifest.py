"""What the files of a repository say: app.json, and the files of other platforms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paasd.build_settings import KEYS, checked
from paasd.errors import InvalidInput, SourceRejected
from paasd.models import ConfigVarNeed, Manifest, Setting
from paasd.source.imports import language
from paasd.source.manifest import read_manifest


def manifest(**files: str) -> Manifest:
    return read_manifest({name.replace("__", "."): text for name, text in files.items()}.get)


def settings(**files: str) -> dict[str, str]:
    return {key: setting.value for key, setting in manifest(**files).settings.items()}


def app_json(**document: Any) -> Manifest:
    return manifest(app__json=json.dumps(document))


def test_nothing_is_said_by_an_empty_repository() -> None:
    assert manifest() == Manifest()


def test_railway_says_how_to_build_start_and_check() -> None:
    found = manifest(
        railway__toml="""
        [build]
        builder = "RAILPACK"
        buildCommand = "npm run build"
        watchPatterns = ["apps/web/**", "package.json"]
        nixpacksPlan = {}
        [deploy]
        startCommand = "node server.js"
        preDeployCommand = ["npm run migrate", "npm run seed"]
        healthcheckPath = "/up"
        healthcheckTimeout = 120
        numReplicas = 3
        """
    )
    assert found.settings == {
        "builder": Setting("buildpacks", "railway.toml build.builder"),
        "build-command": Setting("npm run build", "railway.toml build.buildCommand"),
        "watch-paths": Setting("apps/web/** package.json", "railway.toml build.watchPatterns"),
        "start-command": Setting("node server.js", "railway.toml deploy.startCommand"),
        "release-command": Setting("npm run migrate && npm run seed", "railway.toml deploy.preDeployCommand"),
    }
    assert found.healthchecks == {"web": [{"type": "startup", "path": "/up", "attempts": 120, "wait": 1}]}
    assert found.unused == ("railway.toml: build.nixpacksPlan", "railway.toml: deploy.numReplicas")


def test_railway_json_may_name_a_dockerfile() -> None:
    text = json.dumps({"build": {"builder": "dockerfile", "dockerfilePath": "./docker/web"}})
    assert settings(railway__json=text) == {"builder": "dockerfile", "dockerfile": "docker/web"}


def test_nixpacks_names_packages_commands_and_language() -> None:
    text = """
    providers = ["...", "python"]
    [phases.setup]
    aptPkgs = ["libvips-dev", "ffmpeg"]
    nixPkgs = ["x"]
    [phases.install]
    cmds = ["pip install a", "pip install b"]
    [phases.build]
    cmds = ["...", "make"]
    [start]
    cmd = "python app.py"
    """
    found = manifest(nixpacks__toml=text)
    assert {key: setting.value for key, setting in found.settings.items()} == {
        "packages": "libvips-dev ffmpeg",
        "install-command": "pip install a && pip install b",
        "start-command": "python app.py",
        "builder": "python",
    }
    assert found.unused == (
        "nixpacks.toml: phases.build.cmds, since it adds to the default commands",
        "nixpacks.toml: phases.setup.nixPkgs",
    )


def test_railpack_is_read() -> None:
    document = {
        "provider": "node",
        "packages": {"node": "22", "jq": "1"},
        "steps": {"build": {"commands": [{"cmd": "npm run a"}, "npm run b"]}},
        "deploy": {"startCommand": "npm start", "aptPackages": ["...", "curl"]},
    }
    assert settings(railpack__json=json.dumps(document)) == {
        "builder": "nodejs",
        "version": "22",
        "build-command": "npm run a && npm run b",
        "start-command": "npm start",
        "packages": "curl",
    }


@pytest.mark.parametrize(
    ("files", "builder"),
    [
        ({"project__toml": '[[io.buildpacks.group]]\nid = "heroku/python"\n'}, "python"),
        ({"project__toml": '[[build.buildpacks]]\nid = "paketo-buildpacks/go"\n'}, "go"),
        ({"__buildpacks": "heroku/nodejs\nhttps://github.com/heroku/heroku-buildpack-python.git#v1\n"}, "python"),
        ({"app__json": '{"buildpacks": [{"url": "heroku/ruby"}]}', "__buildpacks": "heroku/go"}, "ruby"),
        ({"paasd__toml": '[build]\nbuilder = "static"\n'}, "static"),
    ],
)
def test_buildpacks_of_others_choose_ours(files: dict[str, str], builder: str) -> None:
    assert settings(**files) == {"builder": builder}


def test_a_buildpack_nobody_knows_is_named() -> None:
    found = manifest(__buildpacks="heroku-community/apt\nheroku/go\n")
    assert found.settings["builder"].value == "go"
    assert found.unused == (".buildpacks: 'heroku-community/apt'",)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("heroku/nodejs", "nodejs"),
        ("https://github.com/heroku/heroku-buildpack-php", "php"),
        ("paketo-buildpacks/ruby", "ruby"),
        ("heroku-community/static", "static"),
        ("https://example.org/x", None),
        ("", None),
    ],
)
def test_names_of_buildpacks(name: str, wanted: str | None) -> None:
    assert language(name) == wanted


def test_the_first_file_decides() -> None:
    found = manifest(
        railway__toml='[deploy]\nstartCommand = "a"\n', nixpacks__toml='[start]\ncmd = "b"\n', paasd__toml="[build]\n"
    )
    assert found.settings == {"start-command": Setting("a", "railway.toml deploy.startCommand")}


def test_aptfile_names_packages() -> None:
    found = manifest(Aptfile="# tools\nlibvips42 # images\n:repo:deb x\nffmpeg\n")
    assert found.settings["packages"] == Setting("libvips42 ffmpeg", "Aptfile lines")
    assert found.unused == ("Aptfile: :repo:deb x",)


def test_app_json_says_what_the_app_needs() -> None:
    found = app_json(
        env={
            "PLAIN": "x",
            "SECRET": {"generator": "secret"},
            "NEEDED": {"required": True, "description": "from the bank"},
            "OPTIONAL": {"description": "d"},
            "FLAG": True,
        },
        formation={"web": {"quantity": 2, "size": "x"}, "worker": {}},
        cron=[
            {"command": "python a.py", "schedule": "0  3 * * *"},
            {"command": "b", "schedule": "@Daily", "concurrency_policy": "forbid", "timezone": "Asia/Tokyo"},
        ],
        scripts={"postdeploy": "once", "dokku": {"predeploy": "before", "postdeploy": "always"}, "test": "pytest"},
        addons=["postgres"],
        name="n",
    )
    assert found.config_vars == {
        "PLAIN": ConfigVarNeed(value="x"),
        "SECRET": ConfigVarNeed(generated=True),
        "NEEDED": ConfigVarNeed(required=True, description="from the bank"),
        "OPTIONAL": ConfigVarNeed(description="d"),
        "FLAG": ConfigVarNeed(value="true"),
    }
    assert found.kept == {
        "formation": {"web": 2, "worker": 1},
        "cron": [
            {"command": "python a.py", "schedule": "0 3 * * *"},
            {"command": "b", "schedule": "@daily", "concurrency": "forbid", "timezone": "Asia/Tokyo"},
        ],
        "scripts": {"predeploy": "before", "postdeploy": "once", "postdeploy-always": "always"},
    }
    assert found.settings == {"test-command": Setting("pytest", "app.json scripts.test")}
    assert found.unused == ("app.json: addons",)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"env": []}, "env must be an object"),
        ({"env": {"A-B": "x"}}, "invalid config var name 'A-B'"),
        ({"env": {"A": ["x"]}}, "env.A must be a string or an object"),
        ({"env": {"A": {"generator": "uuid"}}}, "env.A.generator is 'uuid'"),
        ({"formation": {"web": {"quantity": -1}}}, "formation.web.quantity"),
        ({"formation": {"we b": {}}}, "invalid process type"),
        ({"cron": {}}, "cron must be a list"),
        ({"cron": [{"command": "x"}]}, "cron\\[0\\] must have"),
        ({"cron": [{"command": "x", "schedule": "often"}]}, "'often' is no schedule"),
        ({"cron": [{"command": "x", "schedule": "61 * * * *"}]}, "Bad minute"),
        ({"cron": [{"command": "x", "schedule": "@reboot"}]}, "the names are"),
        ({"cron": [{"command": " ", "schedule": "@daily"}]}, "cron\\[0\\].command is empty"),
        ({"cron": [{"command": "x", "schedule": "@daily", "timezone": "../x"}]}, "timezone '../x' must be"),
        ({"cron": [{"command": "x", "schedule": "@daily", "concurrency_policy": "no"}]}, "must be allow, forbid"),
        ({"scripts": {"postdeploy": 3}}, "postdeploy must be a string"),
        ({"buildpacks": {}}, "buildpacks must be a list"),
    ],
)
def test_a_wrong_app_json_names_its_key(document: Any, said: str) -> None:
    with pytest.raises(SourceRejected, match=f"app.json.*{said}"):
        app_json(**document)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"railway__toml": "["}, "railway.toml is not valid TOML"),
        ({"railway__json": "[]"}, "railway.json must hold one object"),
        ({"railway__toml": "build = 3"}, "railway.toml: build must be an object"),
        ({"railway__json": '{"build": {"watchPatterns": "x"}}'}, "must be a list of strings"),
        ({"railway__json": '{"build": {"dockerfilePath": "../x"}}'}, "build.dockerfilePath: dockerfile must be a path"),
        ({"nixpacks__toml": '[phases.setup]\naptPkgs = ["a;b"]'}, "aptPkgs: packages must be names"),
        ({"paasd__toml": "[build]\nbuidler = 'x'"}, "unknown key 'build.buidler'"),
        ({"Aptfile": "a$b"}, "Aptfile lines: packages must be names"),
    ],
)
def test_a_wrong_file_is_named(files: dict[str, str], said: str) -> None:
    with pytest.raises(SourceRejected, match=said):
        manifest(**files)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("root-dir", "../x"),
        ("root-dir", "/"),
        ("root-dir", "a b"),
        ("builder", "-x"),
        ("version", "3.1 || rm"),
        ("packages", "-o=x"),
        ("packages", "A"),
        ("watch-paths", "a;b"),
        ("build-env", "A-B"),
        ("start-command", "a\0b"),
        ("start-command", "x" * 2001),
        ("nothing", "x"),
    ],
)
def test_settings_have_a_grammar(key: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        checked(key, value)


def test_settings_are_put_into_their_usual_form() -> None:
    assert checked("root-dir", "./apps/web/") == "apps/web"
    assert checked("packages", "bb, aa  bb") == "bb aa"
    assert checked("build-env", "A,B") == "A B"
    assert all(key.description.endswith(".") for key in KEYS.values())
