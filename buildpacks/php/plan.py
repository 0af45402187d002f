"""Plans the build of a PHP app: which PHP, which extensions and packages, and which folder is the web root."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from paasd.build.plan import Plan, Settings, Source
from paasd.errors import SourceRejected
from paasd.models import ProcessType
from paasd.names import shown

_ROOTS = ("public", "web", "webroot", "htdocs", "www")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_HEROKU = re.compile(r"^web:.*heroku-php-(?:nginx|apache2)(.*)$", re.MULTILINE)
_CONSTRAINT = re.compile(r"(\^|~|>=|<=|!=|<>|==|=|>|<)?\s*v?(\d+(?:\.\d+)*)(\.[*xX])?(?:[-@+][\w.]+)?")
_RANGE = re.compile(r"(\S+)\s+-\s+(\S+)")
# Extensions by the package of the distribution that brings them; "" for those that are always there.
_EXTENSIONS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "calendar core ctype date exif ffi fileinfo filter ftp gettext hash iconv json openssl pcntl pcre pdo phar"
            " posix random reflection session shmop sockets sodium spl standard sysvmsg sysvsem sysvshm tokenizer zlib"
            " bcmath curl mbstring mysqli mysqlnd pdo_mysql pgsql pdo_pgsql sqlite3 pdo_sqlite zip zend-opcache opcache"
            " dom libxml simplexml xml xmlreader xmlwriter xsl"
        ).split(),
        "",
    ),
    **{
        name: name
        for name in (
            "amqp apcu bz2 dba ds enchant gd gmp gnupg igbinary imagick imap intl ldap mailparse maxminddb memcached"
            " mongodb msgpack odbc pspell readline redis snmp soap ssh2 tidy uuid xmlrpc yaml zmq"
        ).split()
    },
    "pdo_odbc": "odbc",
}
_NOT_IN = {"8.4": {"imap"}}
_INSTALL = "composer install --no-dev --no-progress --prefer-dist"
_DUMP = "composer dump-autoload --no-dev --optimize"
_EVENT = re.compile(r"(?:pre|post)-(?!autoload-dump$)")
_SYMFONY = " APP_ENV=prod APP_DEBUG=0"


def plan(source: Source, settings: Settings) -> Plan | None:
    composer = _json(source, "composer.json")
    root = _web_root(source, settings, composer or {})
    if composer is None and root is None:
        return None
    version, version_reason = _version(composer or {}, settings)
    extensions = _extensions(source, composer or {}, version)
    process_types, start_reasons = _process_types(root, settings)
    symfony = "config/bundles.php" in source.files
    environment = _SYMFONY if symfony else " LOG_CHANNEL=stderr" if "artisan" in source.files else ""
    folder = root[0] if root else ""
    return Plan(
        buildpack="php",
        process_types=process_types,
        reasons=(
            version_reason,
            *_packages_reasons(source, composer),
            *([f"composer.json: extensions {', '.join(extensions)}"] if extensions else []),
            *(
                ["artisan: Laravel needs APP_KEY as a config var; it logs to stderr"]
                if "artisan" in source.files
                else []
            ),
            *([root[1]] if root else []),
            *start_reasons,
        ),
        versions={"php": version},
        user="10001:10001",
        bases=(f"php@{version}", *([f"php-build@{version}"] if _installs(source, composer, settings) else [])),
        packages=(*(f"php{version}-{name}" for name in extensions), *settings.packages),
        values={
            "version": version,
            "composer": _installs(source, composer, settings),
            "dependency_files": _dependency_files(source, composer or {}, settings),
            "install": _INSTALL,
            "commands": _commands(source, composer, settings),
            "environment": environment,
            "web_root": folder,
            "front_controller": (f"{folder}/index.php" if folder else "index.php") in source.files,
            "heroku": "heroku-php-" in (source.read("Procfile") or ""),
        },
    )


def _json(source: Source, path: str) -> dict[str, Any] | None:
    text = source.read(path)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SourceRejected(f"{path} is not valid JSON: {error}", hint="Check it with: composer validate") from error
    if not isinstance(data, dict):
        raise SourceRejected(f"{path} is not an object", hint="Check it with: composer validate")
    return data


def _table(data: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    found: Any = data
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _web_root(source: Source, settings: Settings, composer: Mapping[str, Any]) -> tuple[str, str] | None:
    """The folder that is served (empty for the root) and what decided it. Raises SourceRejected for one that is not
    there."""
    if settings.output_dir:
        return _checked(source, settings.output_dir, "setting")
    if line := _HEROKU.search(source.read("Procfile") or ""):
        words = [word for word in line[1].split() if not word.startswith("-")]
        return _checked(source, words[-1], "Procfile") if words else ("", "Procfile: serving the root")
    public = _table(composer, "extra").get("public-dir")
    if isinstance(public, str):
        return _checked(source, public, "composer.json")
    for folder in _ROOTS:
        if f"{folder}/index.php" in source.files:
            return folder, f"{folder}/index.php: serving {folder}/"
    return ("", "index.php: serving the root of the repository") if "index.php" in source.files else None


def _checked(source: Source, value: str, where: str) -> tuple[str, str]:
    folder = value.removeprefix("./").strip("/")
    if folder in ("", "."):
        return "", f"{where}: serving the root of the repository"
    if not _FOLDER.fullmatch(folder) or ".." in folder.split("/"):
        raise SourceRejected(f"{where}: {shown(value)} is not a plain folder of the repository")
    if not any(path.startswith(f"{folder}/") for path in source.files):
        raise SourceRejected(
            f"{where}: the web root {shown(value)} holds no files", hint="Commit it, or mend the name."
        )
    return folder, f"{where}: serving {folder}/"


def _process_types(root: tuple[str, str] | None, settings: Settings) -> tuple[tuple[ProcessType, ...], list[str]]:
    if settings.process_types is not None and "web" in settings.process_types:
        return (), []
    if settings.start_command:
        return (ProcessType("web", settings.start_command),), [f"setting: web runs {settings.start_command}"]
    if root is None:
        raise SourceRejected(
            f"this is a PHP app, but nothing says what to serve: no index.php in the root or in {', '.join(_ROOTS)}",
            hint="Add public/index.php, or a file named Procfile with a line like: web: php -S 0.0.0.0:$PORT",
        )
    return (ProcessType("web", "exec serve-php"),), ["web runs PHP-FPM behind Nginx"]


def _installs(source: Source, composer: dict[str, Any] | None, settings: Settings) -> bool:
    return bool(_commands(source, composer, settings))


def _commands(source: Source, composer: dict[str, Any] | None, settings: Settings) -> list[str]:
    vendored = "vendor/autoload.php" in source.files
    finish = _DUMP if _only_dumps(source, composer, settings) else f"{_INSTALL} --optimize-autoloader"
    install = settings.install_command or (finish if composer and not vendored else "")
    return [command for command in (install, settings.build_command) if command]


def _only_dumps(source: Source, composer: dict[str, Any] | None, settings: Settings) -> bool:
    """Whether all that is left, once packages are there, is the autoloader: no script or plugin waits for more."""
    if not composer or not _dependency_files(source, composer, settings):
        return False
    quiet = not any(map(_EVENT.match, _table(composer, "scripts")))
    return quiet and not _table(composer, "config").get("allow-plugins")


def _dependency_files(source: Source, composer: Mapping[str, Any], settings: Settings) -> list[str]:
    """What packages are installed from before the code is there; nothing when that needs the code."""
    repositories = composer.get("repositories") or []
    places = repositories.values() if isinstance(repositories, dict) else repositories
    local = any(isinstance(place, dict) and place.get("type") in ("path", "artifact") for place in places)
    if local or settings.install_command or not composer or "vendor/autoload.php" in source.files:
        return []
    return [path for path in ("composer.json", "composer.lock", "symfony.lock", "auth.json") if path in source.files]


def _packages_reasons(source: Source, composer: dict[str, Any] | None) -> list[str]:
    if composer is None:
        return ["no composer.json: nothing to install"]
    if "vendor/autoload.php" in source.files:
        return ["vendor/autoload.php: the committed packages are used, Composer does not run"]
    if "composer.lock" in source.files:
        return ["composer.lock: exactly these packages are installed"]
    return ["composer.json without composer.lock: Composer chooses versions; commit the lock file to keep them"]


def _extensions(source: Source, composer: Mapping[str, Any], version: str) -> list[str]:
    """Packages for the extensions that the app and its packages require. Raises SourceRejected for unknown ones."""
    wanted = dict.fromkeys(_required(composer), "composer.json")
    for package in _locked(source):
        wanted = {**dict.fromkeys(_required(package), f"composer.lock ({package.get('name')})"), **wanted}
    found = set()
    for name, where in wanted.items():
        package_name = _EXTENSIONS.get(name)
        if package_name is None or package_name in _NOT_IN.get(version, ()):
            raise SourceRejected(
                f"{shown(where)} requires the extension {shown(name)}, which PHP {version} of the distribution has not",
                hint=f"There are: {', '.join(sorted(set(_EXTENSIONS) - _NOT_IN.get(version, set())))}",
            )
        found.add(package_name)
    return sorted(found - {""})


def _required(package: Mapping[str, Any]) -> list[str]:
    names = [name.lower() for name in _table(package, "require") if isinstance(name, str)]
    return [name.removeprefix("ext-") for name in names if name.startswith("ext-")]


def _locked(source: Source) -> list[dict[str, Any]]:
    try:
        data = json.loads(source.read("composer.lock") or "{}")
    except (ValueError, SourceRejected):  # broken: Composer says so; too large to be read: Composer checks extensions
        return []
    packages = data.get("packages") if isinstance(data, dict) else None
    return [package for package in packages if isinstance(package, dict)] if isinstance(packages, list) else []


def _version(composer: Mapping[str, Any], settings: Settings) -> tuple[str, str]:
    """The series and which file decided it. Raises SourceRejected for one that cannot be had."""
    default = settings.versions[0] if settings.versions else ""
    asked = _asked(composer, settings)
    if asked is None:
        return default, f"PHP {default}, the default: no file asks for one"
    where, text = asked
    fitting = [version for version in settings.versions if _meets(version, text)]
    if not fitting and settings.versions:
        raise SourceRejected(
            f"{where} asks for PHP {shown(text)}, which cannot be had here",
            hint=f"There are: {', '.join(settings.versions)}. Ask for one of them.",
        )
    return (fitting or [default])[0], f"{where}: PHP {text}, so {(fitting or [default])[0]}"


def _asked(composer: Mapping[str, Any], settings: Settings) -> tuple[str, str] | None:
    if settings.version:
        return "setting", settings.version
    for where, table in (("config.platform", ("config", "platform")), ("require", ("require",))):
        if isinstance(text := _table(composer, *table).get("php"), str):
            return f"composer.json {where}", text
    return None


def _meets(series: str, constraint: str) -> bool:
    """Whether some patch level of a series meets a constraint as Composer writes them."""
    for either in re.split(r"\|\|?", constraint):
        text = _RANGE.sub(r">=\1 <=\2", either.strip())
        text = re.sub(r"(\^|~|[<>=!]+)\s+", r"\1", text)
        parts = [part for part in re.split(r"[\s,]+", text) if part]
        if parts and all(_meets_one(series, part) for part in parts):
            return True
    return False


def _meets_one(series: str, text: str) -> bool:
    if text in ("*", "x"):
        return True
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        return False
    major, minor = (int(part) for part in series.split("."))
    oldest, newest = (major, minor, 0), (major, minor, 999)
    wanted = tuple(int(part) for part in match[2].split("."))[:3]
    floor = (*wanted, 0, 0)[:3]
    match match[1]:
        case "^":
            return newest >= floor and major == wanted[0]
        case "~":
            return newest >= floor and newest[: max(len(wanted) - 1, 1)] == wanted[: max(len(wanted) - 1, 1)]
        case ">" | ">=":
            return newest >= floor
        case "<":
            return oldest < floor
        case "<=":
            return oldest <= floor
        case "!=" | "<>":
            return len(wanted) > 2 or (major, minor)[: len(wanted)] != wanted
        case _:
            return (major, minor)[: min(len(wanted), 2)] == wanted[:2]
