"""Plans the build of a Ruby app: which Ruby, which gems, and what to run when there is no Procfile."""

from __future__ import annotations

import re
from typing import Any

from paasd.build.plan import Plan, Settings, Source
from paasd.errors import SourceRejected
from paasd.models import ProcessType
from paasd.names import shown

_SCRIPTS = ("app.rb", "main.rb", "server.rb")
_RUBY_LINE = re.compile(r"^\s*ruby[\s(]+([^#\n]+)", re.MULTILINE)
_QUOTED = re.compile(r"""["']([^"']+)["']""")
_FILE = re.compile(r"""file:\s*["']([A-Za-z0-9._-]+)["']""")
_LOCKED_RUBY = re.compile(r"^RUBY VERSION\s+ruby (\d+\.\d+\.\d+)", re.MULTILINE)
_LOCKED_GEM = re.compile(r"^    ([A-Za-z0-9._-]+) \(([^)\s]+)\)$", re.MULTILINE)
_LISTED_GEM = re.compile(r"""^\s*gem[\s(]+["']([A-Za-z0-9._-]+)["']""", re.MULTILINE)
_OWN_CODE = re.compile(
    r"^\s*(?:gemspec\b|eval_gemfile\b|path\s|.*\bpath:|.*:path\s*=>|require_relative\b)", re.MULTILINE
)
_REQUIREMENT = re.compile(r"(~>|>=|<=|!=|>|<|=)?\s*(?:ruby-)?(\d+(?:\.\d+){0,2})\S*")
# Shared libraries that gems with C in them were linked with.
_LIBRARIES = {"pg": "libpq5", "sqlite3": "libsqlite3-0", "mysql2": "libmariadb3"}
_UNPIN = r"sed -i -E 's/^[[:space:]]*ruby[[:space:](].*/# & # any patch level will do/' Gemfile; "
_DUMMY = "SECRET_KEY_BASE_DUMMY=1 SECRET_KEY_BASE=only-while-building"


def plan(source: Source, settings: Settings) -> Plan | None:
    gemfile = source.read("Gemfile")
    if gemfile is None and not any(path in source.files for path in ("config.ru", *_SCRIPTS)):
        return None
    version, version_reason, exact = _version(source, settings)
    gems = _gems(source)
    rails = "rails" in gems or "railties" in gems
    process_types, start_reasons = _process_types(source, gems, rails, settings)
    return Plan(
        buildpack="ruby",
        process_types=process_types,
        reasons=(version_reason, _gems_reason(source), *_rails_reasons(source, rails, gems), *start_reasons),
        versions={"ruby": version},
        user="10001:10001",
        bases=tuple(
            f"{name}@{version}" for name in (("ruby-build", "ruby") if gemfile is not None else ("ruby-rack",))
        ),
        packages=settings.packages,
        values={
            "has_gemfile": gemfile is not None,
            "locked": "Gemfile.lock" in source.files,
            "run_base": "ruby-rack" if gemfile is None else "ruby",
            "run_packages": [*sorted({_LIBRARIES[gem] for gem in gems & set(_LIBRARIES)}), *settings.packages],
            "unpin": _UNPIN if exact and _RUBY_LINE.search(gemfile or "") else "",
            **_steps(source, gemfile or "", gems, rails, settings),
        },
    )


def _steps(source: Source, gemfile: str, gems: set[str], rails: bool, settings: Settings) -> dict[str, Any]:
    cached = _cached(source)
    install = settings.install_command or f"bundle install --jobs 4 --retry 2{' --local' if cached else ''}"
    files = ["Gemfile", *(path for path in ("Gemfile.lock", ".ruby-version", ".tool-versions") if path in source.files)]
    if any(path.startswith("vendor/cache/") for path in source.files):
        files.append("vendor/cache")
    build = settings.build_command
    if not build and rails and _has_assets(source, gems):
        build = f"{_DUMMY} bundle exec rails assets:precompile"
    return {
        "dependency_files": files,
        "needs_code": bool(_OWN_CODE.search(gemfile) or settings.install_command),
        "install": f"{install}; rm -rf /opt/gems/ruby/*/cache",
        "build": build,
    }


def _gems(source: Source) -> set[str]:
    """Names from Gemfile.lock, or from the Gemfile where there is none."""
    lock = source.read("Gemfile.lock")
    return set(
        _LISTED_GEM.findall(source.read("Gemfile") or "")
        if lock is None
        else [name for name, _ in _LOCKED_GEM.findall(lock)]
    )


def _cached(source: Source) -> bool:
    """Whether vendor/cache holds all gems of the lock file, so that nothing need be asked of a server."""
    locked = _LOCKED_GEM.findall(source.read("Gemfile.lock") or "")
    return bool(locked) and all(f"vendor/cache/{name}-{version}.gem" in source.files for name, version in locked)


def _gems_reason(source: Source) -> str:
    if "Gemfile" not in source.files:
        return "no Gemfile: the distribution's Rack, Puma and Sinatra are there"
    if "Gemfile.lock" not in source.files:
        return "Gemfile without Gemfile.lock: Bundler chooses versions; commit the lock file to keep them"
    return f"Gemfile.lock: exactly these gems are installed{', all from vendor/cache' if _cached(source) else ''}"


def _has_assets(source: Source, gems: set[str]) -> bool:
    return bool(gems & {"sprockets-rails", "propshaft", "sprockets"}) and any(
        path.startswith(("app/assets/", "app/javascript/")) for path in source.files
    )


def _rails_reasons(source: Source, rails: bool, gems: set[str]) -> list[str]:
    if not rails:
        return []
    secret = "Rails: needs SECRET_KEY_BASE, or RAILS_MASTER_KEY for its credentials, as a config var"
    return [secret, *(["app/assets: rails assets:precompile"] if _has_assets(source, gems) else [])]


def _process_types(
    source: Source, gems: set[str], rails: bool, settings: Settings
) -> tuple[tuple[ProcessType, ...], list[str]]:
    if settings.process_types is not None and "web" in settings.process_types:
        return (), []
    if settings.start_command:
        return (ProcessType("web", settings.start_command),), [f"setting: web runs {settings.start_command}"]
    command, reason = _start(source, gems, rails)
    return (ProcessType("web", command),), [reason]


def _start(source: Source, gems: set[str], rails: bool) -> tuple[str, str]:
    """The command of `web` and which file decided it. Raises SourceRejected when none can be found."""
    bundled = "bundle exec " if "Gemfile" in source.files else ""
    if rails and "config/application.rb" in source.files:
        return f"{bundled}rails server -b 0.0.0.0 -p $PORT", "config/application.rb: Rails' own server command"
    if "config.ru" in source.files:
        if "puma" in gems or not bundled:
            return f"{bundled}puma -b tcp://0.0.0.0:$PORT config.ru", "config.ru: served by Puma"
        return f"{bundled}rackup -o 0.0.0.0 -p $PORT config.ru", "config.ru: served by rackup"
    for path in _SCRIPTS:
        if path in source.files:
            text = source.read(path) or ""
            options = " -o 0.0.0.0 -p $PORT" if re.search(r"""require ["']sinatra["']""", text) else ""
            return f"{bundled}ruby {path}{options}", f"{path} in the root: run as it is"
    raise SourceRejected(
        f"this is a Ruby app, but nothing says how to start it: no Procfile, no config.ru, no {', '.join(_SCRIPTS)}",
        hint="Add a file named Procfile with a line like: web: bundle exec puma -b tcp://0.0.0.0:$PORT",
    )


def _version(source: Source, settings: Settings) -> tuple[str, str, bool]:
    """The series, which file decided it, and whether a patch level was asked for. Raises SourceRejected."""
    default = settings.versions[0] if settings.versions else ""
    asked = _asked(source, settings)
    if asked is None:
        return default, f"Ruby {default}, the default: no file asks for one", False
    where, texts = asked
    words = ", ".join(texts)
    requirements = [_REQUIREMENT.fullmatch(text.strip()) for text in texts]
    if not all(requirements):
        raise SourceRejected(f"{where} asks for Ruby {shown(words)}, which is not a version", hint=_had(settings))
    parts = [(match[1] or "=", match[2]) for match in requirements if match]
    fitting = [version for version in settings.versions if all(_meets(version, *part) for part in parts)]
    if not fitting and settings.versions:
        raise SourceRejected(f"{where} asks for Ruby {words}, which cannot be had here", hint=_had(settings))
    exact = any(operator == "=" and number.count(".") == 2 for operator, number in parts)
    patch = ", in the suite's own patch level" if exact else ""
    return (fitting or [default])[0], f"{where}: {words}, so Ruby {(fitting or [default])[0]}{patch}", exact


def _had(settings: Settings) -> str:
    return f"There are: {', '.join(settings.versions)}. Ask for one of them."


def _asked(source: Source, settings: Settings) -> tuple[str, list[str]] | None:
    if settings.version:
        return "setting", [settings.version]
    if line := _RUBY_LINE.search(source.read("Gemfile") or ""):
        if file := _FILE.search(line[1]):
            return file[1], [_tool_version(source.read(file[1]) or "")]
        if found := _QUOTED.findall(re.split(r"\b(?:engine|patchlevel)", line[1])[0]):
            return "Gemfile", found
    for path in (".ruby-version", ".tool-versions"):
        if text := _tool_version(source.read(path) or ""):
            return path, [text]
    if locked := _LOCKED_RUBY.search(source.read("Gemfile.lock") or ""):
        return "Gemfile.lock", [locked[1]]
    return None


def _tool_version(text: str) -> str:
    """The version in a `.ruby-version`, or in a `.tool-versions` with a line for Ruby."""
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    named = [words[1] for words in lines if words[0] == "ruby" and len(words) > 1]
    return (named or [words[0] for words in lines if len(words) == 1] or [""])[0]


def _meets(series: str, operator: str, number: str) -> bool:
    """Whether the newest patch level of a series meets a requirement as RubyGems understands it."""
    had, wanted = (*_numbers(series), 999), _numbers(number)
    match operator:
        case "=":
            return had[:2] == wanted[:2] if len(wanted) > 1 else had[:1] == wanted
        case "!=":
            return True  # it leaves out one patch level, and another will do
        case "~>":
            return had >= wanted and had[: max(len(wanted) - 1, 1)] == wanted[: max(len(wanted) - 1, 1)]
        case ">" | ">=":
            return had >= wanted
        case "<":
            return (*had[:2], 0) < (*wanted, 0, 0)[:3]
        case _:
            return (*had[:2], 0) <= (*wanted, 0, 0)[:3]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
