"""Plans of the Ruby buildpack."""

from __future__ import annotations

from typing import Any

import pytest

from paasd.build.buildpacks import Buildpacks
from paasd.build.plan import Plan, Settings
from paasd.errors import SourceRejected
from tests.unit.test_buildpacks import DEBIAN, ROOT, Repository

BASES = {name: f"paasd/{name}:3.3" for name in ("ruby", "ruby-build", "ruby-rack")}
PUMA = "puma -b tcp://0.0.0.0:$PORT config.ru"


@pytest.fixture(scope="module")
def packs() -> Buildpacks:
    return Buildpacks(ROOT)


def plan(packs: Buildpacks, files: dict[str, str], **settings: Any) -> Plan:
    types = ("web",) if "web:" in files.get("Procfile", "") else None
    chosen = Settings(process_types=types, **settings)
    return packs.plan(Repository(files), 5000, wanted="ruby", settings=chosen, suites=DEBIAN)


def lock(*gems: str) -> str:
    return "GEM\n  specs:\n" + "".join(f"    {gem} (1.0)\n      dependency (>= 1)\n" for gem in gems)


@pytest.mark.parametrize(
    ("files", "version", "unpinned"),
    [
        ({}, "3.3", False),
        ({".ruby-version": "ruby-3.1.4\n"}, "3.1", False),
        ({".tool-versions": "nodejs 20.1.0\nruby 3.1.2\n"}, "3.1", False),
        ({".tool-versions": "nodejs 20.1.0\n"}, "3.3", False),
        ({"Gemfile": 'ruby "3.1.2"\n', ".ruby-version": "3.3.0"}, "3.1", True),
        ({"Gemfile": "ruby '~> 3.1.0' # old\n"}, "3.1", False),
        ({"Gemfile": "ruby '~> 3.1'\n"}, "3.3", False),
        ({"Gemfile": 'ruby ">= 2.7", "< 3.2"\n'}, "3.1", False),
        ({"Gemfile": 'ruby("3.3.1", engine: "ruby")\n'}, "3.3", True),
        ({"Gemfile": 'ruby file: ".ruby-version"\n', ".ruby-version": "3.1.6"}, "3.1", True),
        ({"Gemfile": "gem 'x'\n", "Gemfile.lock": "RUBY VERSION\n   ruby 3.1.2p20\n"}, "3.1", False),
    ],
)
def test_files_choose_the_ruby(packs: Buildpacks, files: dict[str, str], version: str, unpinned: bool) -> None:
    made = plan(packs, {"app.rb": "", **files})
    assert made.versions == {"ruby": version}
    assert bool(made.values["unpin"]) is unpinned
    assert plan(packs, {"app.rb": "", **files}, version="3.1").versions == {"ruby": "3.1"}


@pytest.mark.parametrize("asked", ['ruby "2.7.8"', 'ruby "~> 2.7"', 'ruby "< 3.0"', 'ruby ">= 3.9"', 'ruby "jruby-9"'])
def test_a_ruby_that_cannot_be_had_is_refused(packs: Buildpacks, asked: str) -> None:
    with pytest.raises(SourceRejected, match="Gemfile asks for Ruby") as caught:
        plan(packs, {"app.rb": "", "Gemfile": f"{asked}\n"})
    assert caught.value.hint == "There are: 3.3, 3.1. Ask for one of them."


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"config.ru": "", "app.rb": ""}, PUMA),
        ({"config.ru": "", "Gemfile": "", "Gemfile.lock": lock("puma")}, f"bundle exec {PUMA}"),
        ({"config.ru": "", "Gemfile": 'gem "puma"\n'}, f"bundle exec {PUMA}"),
        ({"config.ru": "", "Gemfile": ""}, "bundle exec rackup -o 0.0.0.0 -p $PORT config.ru"),
        ({"app.rb": 'require "sinatra"'}, "ruby app.rb -o 0.0.0.0 -p $PORT"),
        ({"server.rb": "", "Gemfile": ""}, "bundle exec ruby server.rb"),
        (
            {"config/application.rb": "", "config.ru": "", "Gemfile": "", "Gemfile.lock": lock("railties", "puma")},
            "bundle exec rails server -b 0.0.0.0 -p $PORT",
        ),
    ],
)
def test_what_runs(packs: Buildpacks, files: dict[str, str], command: str) -> None:
    (process_type,) = plan(packs, files).process_types
    assert process_type.command == command
    assert plan(packs, files | {"Procfile": "web: x"}).process_types == ()


def test_nothing_to_run_asks_for_a_procfile(packs: Buildpacks) -> None:
    with pytest.raises(SourceRejected, match="nothing says how to start it"):
        plan(packs, {"Gemfile": "", "lib/x.rb": ""})


def test_rails_compiles_assets_with_a_dummy_secret(packs: Buildpacks) -> None:
    files = {
        "Gemfile": "",
        "Gemfile.lock": lock("rails", "propshaft", "pg"),
        "config/application.rb": "",
        "app/assets/a.css": "",
    }
    made = plan(packs, files)
    assert made.values["build"].startswith("SECRET_KEY_BASE_DUMMY=1 ")
    assert made.values["run_packages"] == ["libpq5"]
    text = packs.render(made, BASES, "app1", "trixie")["Dockerfile"]
    assert text.count("assets:precompile") == 1
    run_stage = text.partition("AS run")[2]
    assert "SECRET_KEY_BASE" not in run_stage and "RAILS_ENV=production" in run_stage
    assert plan(packs, {**files, "Gemfile.lock": lock("rails")}).values["build"] == ""
    assert plan(packs, files, build_command="make").values["build"] == "make"


def test_gems_are_installed_before_the_code_unless_they_are_in_it(packs: Buildpacks) -> None:
    files = {"Gemfile": 'gem "x"\n', "Gemfile.lock": lock("x"), "app.rb": "", "vendor/cache/x-1.0.gem": ""}
    made = plan(packs, files)
    assert made.values["dependency_files"] == ["Gemfile", "Gemfile.lock", "vendor/cache"]
    text = packs.render(made, BASES, "app1", "trixie")["Dockerfile"]
    assert text.index("bundle install --jobs 4 --retry 2 --local") < text.index("COPY app/ /app/")
    assert "--local" not in plan(packs, {**files, "Gemfile.lock": lock("x", "y")}).values["install"]
    for line in ("gemspec", 'gem "y", path: "engines/y"', 'eval_gemfile "more"'):
        assert plan(packs, {**files, "Gemfile": f"{line}\n"}).values["needs_code"] is True
