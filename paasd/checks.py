"""Health checks as values: the grammar of app.json's `healthchecks` and of `checks:set`, and what a check means once
what is not said has its default."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from paasd.errors import InvalidInput
from paasd.names import shown

WORKER_UPTIME = 3.0
"""Seconds that an instance must stay up of which nothing else is asked."""
EVERY_TYPE = "*"
"""Stands for all process types in what was switched off."""
OFF = "off"
_STRATEGIES = ("path", "command", "listening")
_HTTP = ("path", "content", "scheme", "httpHeaders")
_MOST_CHECKS, _MOST_WORDS, _MOST_HEADERS = 20, 64, 20
_URL = re.compile(r"https?://[\x21-\x7e]{1,500}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


class CheckType(StrEnum):
    STARTUP = "startup"
    """Must pass before a new instance gets requests; all of them."""
    LIVENESS = "liveness"
    """An instance that fails it is restarted."""
    READINESS = "readiness"
    """An instance that fails it gets no requests until it passes again."""


SETTINGS = {
    "path": "HTTP path that must answer 200 to 399; without one any HTTP answer will do",
    "content": "text its answer must hold",
    "scheme": "http or https (http)",
    "httpHeaders": "headers of the request, as a list of {name, value}",
    "command": "command that must end with status 0 inside the instance, as a list of words",
    "listening": "true: the port must take connections",
    "port": "port that is asked (the one in $PORT)",
    "uptime": "seconds the instance must stay up (0; 3 where nothing else is checked)",
    "attempts": "failures in a row before the check counts as failed (3)",
    "wait": "seconds between two attempts (5)",
    "timeout": "seconds for one answer (5)",
    "initialDelay": "seconds before the first attempt (0)",
    "name": "what reports call the check",
    "warn": "true: a failure is told, and nothing else happens",
    "onFailure": "what a failure sets off: {command: [words], url: address}",
}


@dataclass(frozen=True)
class Check:
    """One check of a process type. Times in seconds."""

    type: CheckType = CheckType.STARTUP
    name: str = ""
    path: str | None = None
    content: str | None = None
    scheme: str = "http"
    headers: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    listening: bool = False
    answer: bool = False
    """Any HTTP answer will do."""
    port: int = 0
    uptime: float = 0.0
    attempts: int = 3
    wait: float = 5.0
    timeout: float = 5.0
    initial_delay: float = 0.0
    warn: bool = False
    on_failure_command: tuple[str, ...] = ()
    """Runs inside the instance that failed."""
    on_failure_url: str = ""

    @cached_property
    def question(self) -> tuple[object, ...]:
        """What is asked, whatever follows from the answer: the same one needs to be asked only once."""
        asked = (self.scheme, self.port, self.path, self.headers, self.content, self.answer, self.timeout)
        return (*asked, self.command, self.listening, self.uptime)

    @property
    def asks_http(self) -> bool:
        return self.path is not None or self.answer

    @property
    def asks(self) -> bool:
        """Whether there is more to it than staying up."""
        return self.asks_http or self.listening or bool(self.command)

    @property
    def what(self) -> str:
        """`GET /health`, in words."""
        if self.command:
            return f"command {' '.join(self.command)[:80]}"
        if self.listening:
            return f"port {self.port}"
        if self.asks_http:
            return f"GET {self.path or '/'}"
        return f"up for {self.uptime:g} s"


def checks_of(listed: Sequence[Mapping[str, Any]], kind: CheckType, process_type: str, port: int) -> list[Check]:
    """The checks of one type, of those in `release.checks[process_type]` as `merged` makes them. `port` is $PORT."""
    mine = [entry for entry in listed if entry.get("type", CheckType.STARTUP) == kind and _is_sound(entry)]
    is_web = process_type == "web"
    if any(entry.get(OFF) for entry in mine):
        return [Check(kind, uptime=WORKER_UPTIME)] if kind is CheckType.STARTUP else []
    checks = [_check(entry, kind, is_web, port) for entry in mine]
    if kind is not CheckType.STARTUP:
        return [check for check in checks if check.asks or check.uptime]
    if is_web and not any((check.asks_http or check.listening) and not check.warn for check in checks):
        checks.append(Check(answer=True, port=port))  # it is about to get requests
    return checks or [Check(uptime=WORKER_UPTIME)]


def _is_sound(entry: Mapping[str, Any]) -> bool:
    """Releases made before everything was checked may hold anything."""
    try:
        check_settings({key: value for key, value in entry.items() if key in SETTINGS})
    except InvalidInput:
        return False
    return True


def _check(entry: Mapping[str, Any], kind: CheckType, is_web: bool, port: int) -> Check:
    path = entry.get("path", "/" if entry.get("content") is not None else None)
    command, listening = tuple(entry.get("command", ())), bool(entry.get("listening", False))
    silent = path is None and not command and not listening
    answer = silent and is_web and "uptime" not in entry
    startup = kind is CheckType.STARTUP
    return Check(
        type=kind,
        name=str(entry.get("name", "")),
        path=path,
        content=entry.get("content"),
        scheme=str(entry.get("scheme", "http")),
        headers=tuple((str(h["name"]), str(h["value"])) for h in entry.get("httpHeaders", ())),
        command=command,
        listening=listening,
        answer=answer,
        port=int(entry.get("port", port)) or port,
        uptime=float(entry.get("uptime", WORKER_UPTIME if silent and not answer and startup else 0)),
        attempts=max(1, int(entry.get("attempts", 3))),
        wait=float(entry.get("wait", 5)),
        timeout=max(0.1, float(entry.get("timeout", 5))),
        initial_delay=float(entry.get("initialDelay", 0)),
        warn=bool(entry.get("warn", False)),
        on_failure_command=tuple((entry.get("onFailure") or {}).get("command") or ()),
        on_failure_url=str((entry.get("onFailure") or {}).get("url") or ""),
    )


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A check with other settings; another strategy takes the place of the one before."""
    kept = dict(base)
    strategy = next((key for key in _STRATEGIES if over.get(key)), None)
    if strategy is not None:
        gone = {*_STRATEGIES, *_HTTP} if strategy != "path" else {*_STRATEGIES}
        kept = {key: value for key, value in kept.items() if key not in gone - {strategy}}
    return {**kept, **over}


def merged(from_repository: Mapping[str, Any], from_user: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """`healthchecks` of app.json, each type's first check changed as `checks:set` said, without those switched off."""
    result = {}
    everywhere = set(from_user.get(EVERY_TYPE, {}).get(OFF, ()))
    for name in {*from_repository, *from_user, *(["web"] if everywhere else [])} - {EVERY_TYPE}:
        given = from_user.get(name, {})
        off = everywhere | set(given.get(OFF, ()))
        listed = [dict(entry) for entry in from_repository.get(name, ())]
        for kind in CheckType:
            if over := given.get(kind):
                listed = _first_changed(listed, kind, over)
        listed = [entry for entry in listed if entry.get("type", CheckType.STARTUP) not in off]
        result[name] = listed + [{"type": kind, OFF: True} for kind in sorted(off)]
    return result


def _first_changed(listed: list[dict[str, Any]], kind: CheckType, over: Mapping[str, Any]) -> list[dict[str, Any]]:
    for position, entry in enumerate(listed):
        if entry.get("type", CheckType.STARTUP) == kind:
            return [*listed[:position], laid_over(entry, over), *listed[position + 1 :]]
    return [*listed, {"type": str(kind), **over}]


def parse_all(document: Any, where: str) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """`healthchecks` of app.json, and what of it paasd does not do. Raises InvalidInput naming the place."""
    if not isinstance(document, dict) or not all(isinstance(listed, list) for listed in document.values()):
        raise InvalidInput(f"{where} must map process types to lists of checks")
    unused: list[str] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for name, listed in document.items():
        place = f"{where}.{_word(name)}"
        if len(listed) > _MOST_CHECKS:
            raise InvalidInput(f"{place} has {len(listed)} checks; at most {_MOST_CHECKS} are taken")
        found[name] = [_parsed(entry, f"{place}[{n}]", name, unused) for n, entry in enumerate(listed)]
    return found, unused


def _parsed(entry: Any, where: str, process_type: str, unused: list[str]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InvalidInput(f"{where} must be an object", hint='For example: {"type": "readiness", "path": "/ready"}')
    kind = entry.get("type", CheckType.STARTUP)
    if kind not in list(CheckType):
        raise InvalidInput(f"{where}.type must be startup, liveness or readiness, not {shown(str(kind))}")
    unused += [f"{where}.{_word(key)}" for key in entry if key != "type" and key not in SETTINGS]
    known = {key: value for key, value in entry.items() if key in ("type", *SETTINGS) and value is not None}
    check_settings({key: value for key, value in known.items() if key != "type"}, f"{where}.")
    if kind == CheckType.LIVENESS and "uptime" in known:
        del known["uptime"]
        unused.append(f"{where}.uptime (a liveness check that waits for it would restart the instance for ever)")
    if kind != CheckType.STARTUP and process_type != "web" and not _says_something(known):
        raise InvalidInput(
            f"{where} does not say what to check", hint="Give it one of path, command, listening; readiness: or uptime."
        )
    return known


def _word(name: str) -> str:
    return name if name.isidentifier() else shown(name)


def _says_something(entry: Mapping[str, Any]) -> bool:
    return any(entry.get(key) for key in (*_STRATEGIES, "content", "uptime"))


def check_settings(settings: Mapping[str, Any], where: str = "") -> None:
    """Raises InvalidInput for a setting that does not exist, a wrong value, or strategies that exclude each other.
    None values are left out of account."""
    for name, value in settings.items():
        if name not in SETTINGS:
            raise InvalidInput(f"unknown check setting {shown(name)}", hint=f"Known: {', '.join(SETTINGS)}")
        if value is not None and (wrong := _RULES[name](value)):
            raise InvalidInput(f"{where}{name} must be {wrong}")
    chosen = [name for name in _STRATEGIES if settings.get(name)]
    if len(chosen) > 1:
        raise InvalidInput(
            f"{where}{chosen[1]} excludes {chosen[0]}", hint="Write two checks: all of a type must pass."
        )
    if settings.get("content") is not None and chosen not in ([], ["path"]):
        raise InvalidInput(f"{where}content is for checks with a path")


_Rule = Callable[[Any], str | None]


def _text(limit: int) -> _Rule:
    def rule(value: Any) -> str | None:
        good = isinstance(value, str) and value.isprintable() and 0 < len(value) <= limit
        return None if good else f"printable text of at most {limit} characters"

    return rule


def _number(least: float, most: float, *, whole: bool = False) -> _Rule:
    def rule(value: Any) -> str | None:
        good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        kind = "a whole number" if whole else "a number"
        return None if good and least <= value <= most else f"{kind} from {least:g} to {most:g}"

    return rule


def _path(value: Any) -> str | None:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or len(value) > 500:
        return "printable text of at most 500 characters that starts with /"
    return "without spaces" if " " in value else None


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _scheme(value: Any) -> str | None:
    return None if value in ("http", "https") else "http or https"


def _command(value: Any) -> str | None:
    good = isinstance(value, list) and value and all(isinstance(word, str) and "\0" not in word for word in value)
    small = good and len(value) <= _MOST_WORDS and len(json.dumps(value)) <= 4000
    return None if small and value[0] else 'a list of words, such as ["pg_isready", "-q"]'


def _on_failure(value: Any) -> str | None:
    if not isinstance(value, dict) or not value or set(value) - {"command", "url"}:
        return 'an object with a command, a url or both, such as {"url": "https://example.org/failed"}'
    if (command := value.get("command")) is not None and (wrong := _command(command)):
        return f"an object whose command is {wrong}"
    url = value.get("url")
    good = url is None or (isinstance(url, str) and _URL.fullmatch(url))
    return None if good else "an object whose url begins with https:// or http://"


def _headers(value: Any) -> str | None:
    good = isinstance(value, list) and len(value) <= _MOST_HEADERS and all(map(_is_header, value))
    return None if good else 'a list of headers, such as [{"name": "X-Check", "value": "1"}]'


def _is_header(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    name, value = entry.get("name"), entry.get("value")
    if not isinstance(name, str) or not isinstance(value, str) or not _HEADER.fullmatch(name):
        return False
    return value.isprintable() and len(value) <= 1000


_RULES: Mapping[str, _Rule] = {
    "path": _path,
    "content": _text(500),
    "scheme": _scheme,
    "httpHeaders": _headers,
    "command": _command,
    "listening": _boolean,
    "port": _number(1, 65535, whole=True),
    "uptime": _number(0, 3600),
    "attempts": _number(0, 1000, whole=True),
    "wait": _number(0, 3600),
    "timeout": _number(0, 3600),
    "initialDelay": _number(0, 3600),
    "name": _text(100),
    "warn": _boolean,
    "onFailure": _on_failure,
}
