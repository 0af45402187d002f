"""Health checks as values: which there are of what app.json and `checks:set` say, and what each means once what is not
said has its default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paasd.check_grammar import SETTINGS, STRATEGIES, CheckType, answer_settings, check_settings, statuses_of
from paasd.errors import InvalidInput

WORKER_UPTIME = 3.0
"""Seconds that an instance must stay up of which nothing else is asked."""
EVERY_TYPE = "*"
"""Stands for all process types in what was switched off."""
OFF = "off"
_HTTP = ("path", "status", "content", "scheme", "httpHeaders")
_TO_COME_BACK = 3
"""Successes in a row after which an unready instance gets requests again, unless another count is said."""


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
    statuses: tuple[str, ...] = ()
    """What must be answered, as `204` or `2xx`; 200 to 399 when nothing is said."""
    successes: int = 1
    """In a row, before it counts as passed: at the start, or after having failed."""

    @cached_property
    def question(self) -> tuple[object, ...]:
        """What is asked, whatever follows from the answer: the same one needs to be asked only once."""
        asked = (self.scheme, self.port, self.path, self.headers, self.answer, self.timeout)
        return (*asked, self.statuses, self.content, self.command, self.listening, self.uptime)

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

    @property
    def expected(self) -> str:
        """`204 or 3xx`, in words."""
        return " or ".join(self.statuses) or "200 to 399"

    def takes(self, status: int) -> bool:
        if self.statuses:
            return str(status) in self.statuses or f"{status // 100}xx" in self.statuses
        return 200 <= status < 400 or (self.answer and self.content is None)


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
    about_answer = entry.get("content") is not None or entry.get("status") is not None
    path = entry.get("path", "/" if about_answer else None)
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
        statuses=statuses_of(entry.get("status")),
        successes=_successes(entry, kind),
    )


def _successes(entry: Mapping[str, Any], kind: CheckType) -> int:
    """An instance that is alive is not restarted, so one is enough there."""
    if kind is CheckType.LIVENESS:
        return 1
    return int(entry.get("successes") or (_TO_COME_BACK if kind is CheckType.READINESS else 1))


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A check with other settings; another strategy takes the place of the one before."""
    kept = dict(base)
    strategy = next((key for key in STRATEGIES if over.get(key)), None)
    if strategy is not None:
        gone = {*STRATEGIES, *_HTTP} if strategy != "path" else {*STRATEGIES}
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


def misfits(listed: Sequence[Mapping[str, Any]], kind: CheckType, over: Mapping[str, Any]) -> list[str]:
    """Settings in `over` of an HTTP answer that the first check of its type would not get: it runs a command, or looks
    whether the port takes connections."""
    first = next((entry for entry in listed if entry.get("type", CheckType.STARTUP) == kind), {})
    changed = laid_over(first, over)
    return answer_settings(over) if changed.get("command") or changed.get("listening") else []


def _first_changed(listed: list[dict[str, Any]], kind: CheckType, over: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Without what does not fit a check that came with a later release: it is asked as the repository says."""
    for position, entry in enumerate(listed):
        if entry.get("type", CheckType.STARTUP) == kind:
            left_out = misfits([entry], kind, over)
            changed = laid_over(entry, {key: value for key, value in over.items() if key not in left_out})
            return [*listed[:position], changed, *listed[position + 1 :]]
    return [*listed, {"type": str(kind), **over}]
