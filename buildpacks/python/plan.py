"""Plans the build of a Python app: what to install, and what to run when there is no Procfile."""

from __future__ import annotations

import re
from collections.abc import Iterator

from paasd.build.plan import Plan, Settings, Source
from paasd.errors import SourceRejected
from paasd.models import ProcessType

REQUIREMENTS = "requirements.txt"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)")
_LOCAL = re.compile(
    r"(?:-e\s|--editable|\.|/|file:|--find-links\s+[^h]|-f\s+[^h])|\S+\s*@\s*file:|\S+\.(?:whl|tar\.gz|zip)$"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MODULES = ("main.py", "app.py", "server.py", "wsgi.py", "application.py")
_SCRIPTS = ("main.py", "app.py", "server.py")
_WSGI = re.compile(r"^(\w+)\s*(?::[^=]+)?=\s*(?:flask\.)?Flask\(", re.MULTILINE)
_ASGI = re.compile(
    r"^(\w+)\s*(?::[^=]+)?=\s*(?:fastapi\.|starlette\.applications\.)?(?:FastAPI|Starlette)\(", re.MULTILINE
)


def plan(source: Source, settings: Settings) -> Plan | None:
    has_procfile = "Procfile" in source.files
    scripts = any(path.endswith(".py") and "/" not in path for path in source.files)
    if REQUIREMENTS not in source.files and not (has_procfile and scripts):
        return None
    requirements = _Requirements(source)
    version = settings.versions[0]
    reasons = [f"Python {version}, the default", requirements.reason]
    process_types: tuple[ProcessType, ...] = ()
    if not has_procfile:
        command, reason = _start_command(source, requirements.names)
        process_types = (ProcessType("web", command),)
        reasons.append(reason)
    return Plan(
        buildpack="python",
        process_types=process_types,
        reasons=tuple(reasons),
        user="10001:10001",
        versions={"python": version},
        bases=(f"python-build@{version}", f"python@{version}"),
        values={"version": version, "requirements": requirements.files, "needs_code": requirements.needs_code},
    )


class _Requirements:
    """requirements.txt with the files it includes: which files they are, and which packages they name."""

    def __init__(self, source: Source) -> None:
        self.files: list[str] = []
        self.names: set[str] = set()
        self.needs_code = False
        self._read(source, REQUIREMENTS)
        self.files.sort()

    @property
    def reason(self) -> str:
        if not self.files:
            return "Procfile and *.py files, no requirements.txt: nothing to install"
        if self.needs_code:
            return f"{REQUIREMENTS} refers to the app's own code: packages are installed again after every change"
        return f"{', '.join(self.files)}: packages are installed again only when it changes"

    def _read(self, source: Source, path: str) -> None:
        text = source.read(path)
        if path in self.files or text is None:
            return
        self.files.append(path)
        for line in _lines(text):
            if include := _INCLUDE.match(line):
                self._include(source, path, include[1])
            elif _LOCAL.match(line):
                self.needs_code = True
            elif name := _NAME.match(line):
                self.names.add(re.sub(r"[-_.]+", "-", name[0]).lower())

    def _include(self, source: Source, path: str, included: str) -> None:
        folder = path.rpartition("/")[0]
        target = f"{folder}/{included}" if folder else included
        if included.startswith(("http://", "https://")):
            return
        if not _PLAIN_PATH.fullmatch(target) or ".." in target.split("/") or target not in source.files:
            self.needs_code = True
            return
        self._read(source, target)


def _lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        if cleaned := re.sub(r"(?:^|\s)#.*", "", line).strip():
            yield cleaned


def _start_command(source: Source, packages: set[str]) -> tuple[str, str]:
    """The command of `web` and which file decided it. Raises SourceRejected when none can be found."""
    return _django(source, packages) or _framework(source, packages) or _script(source)


def _django(source: Source, packages: set[str]) -> tuple[str, str] | None:
    modules = sorted(
        (path for path in source.files if path.endswith("/wsgi.py")), key=lambda path: (path.count("/"), path)
    )
    if "manage.py" not in source.files or not modules:
        return None
    module = modules[0].removesuffix(".py").replace("/", ".")
    if "gunicorn" in packages:
        return f"gunicorn --bind 0.0.0.0:$PORT {module}", f"manage.py and {modules[0]}: Django, served by gunicorn"
    return (
        "python manage.py runserver --noreload 0.0.0.0:$PORT",
        f"manage.py and {modules[0]}: Django, served by its development server; add gunicorn to {REQUIREMENTS}",
    )


def _framework(source: Source, packages: set[str]) -> tuple[str, str] | None:
    for path in _MODULES:
        text = source.read(path) or ""
        module = path.removesuffix(".py")
        if "uvicorn" in packages and (found := _ASGI.search(text)):
            command = f"uvicorn {module}:{found[1]} --host 0.0.0.0 --port $PORT"
            return command, f"{path} makes an ASGI application named {found[1]}, served by uvicorn"
        if "gunicorn" in packages and (found := _WSGI.search(text)):
            command = f"gunicorn --bind 0.0.0.0:$PORT {module}:{found[1]}"
            return command, f"{path} makes a Flask application named {found[1]}, served by gunicorn"
    return None


def _script(source: Source) -> tuple[str, str]:
    for path in _SCRIPTS:
        if path in source.files:
            return f"python {path}", f"{path} in the root: run as it is"
    raise SourceRejected(
        f"this is a Python app, but nothing says how to start it: no Procfile, no {', '.join(_SCRIPTS)}, no manage.py",
        hint="Add a file named Procfile with a line like: web: gunicorn --bind 0.0.0.0:$PORT app:app",
    )
