"""Every error paasd raises on purpose, in one tree.

    PaasdError
    ├── InvalidInput 422            a value outside its grammar
    │   └── SourceRejected          a repository that cannot be deployed, and how to fix it
    ├── NotAuthenticated 401
    ├── Forbidden 403
    ├── NotFound 404                also what a stranger sees of a foreign object
    ├── Conflict 409
    │   ├── AlreadyExists
    │   ├── Superseded              a newer push to the same app won
    │   └── Cancelled
    ├── TooMany 429
    ├── QuotaExceeded 403
    ├── DeployFailed 422            the old release keeps serving
    │   ├── BuildFailed
    │   ├── ReleaseTaskFailed
    │   └── HealthCheckFailed
    ├── EngineError 502             the container engine refused
    │   ├── EngineNotFound
    │   ├── EngineConflict
    │   └── EngineUnavailable 503   not running, or silent past its time-out
    ├── EdgeError 502
    │   └── InvalidSite 422         nginx -t refused one app's server block
    ├── CertificateError 502        an authority did not give a certificate
    ├── DiskFull 507
    └── DatabaseDamaged 500

Foreign errors are translated into these where they enter (`docker_engine/`, `route/`, `push/`). Each front door
renders them once: `api/server.py` as RFC 9457 problem details, `cli/` and the push stream as ` !     ` lines.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from typing import Any, ClassVar


class PaasdError(Exception):
    """Base of the tree. `detail` says what was seen and why; `hint` is the next thing to type or change."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    hint: str = ""

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint or type(self).hint

    def problem(self) -> dict[str, Any]:
        """RFC 9457 members, plus `code` and `hint`."""
        return {
            "type": f"about:blank#{self.code}",
            "title": self.code.replace("-", " "),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint,
        }


class InvalidInput(PaasdError):
    status = 422
    code = "invalid-input"


class SourceRejected(InvalidInput):
    code = "source-rejected"


class NotAuthenticated(PaasdError):
    status = 401
    code = "not-authenticated"


class Forbidden(PaasdError):
    status = 403
    code = "forbidden"


class NotFound(PaasdError):
    status = 404
    code = "not-found"


class Conflict(PaasdError):
    status = 409
    code = "conflict"


class AlreadyExists(Conflict):
    code = "already-exists"


class Superseded(Conflict):
    code = "superseded"


class Cancelled(Conflict):
    code = "cancelled"


class NothingToDeploy(Conflict):
    """Not a failure: what was pushed is stored, and what is live stays."""

    code = "nothing-to-deploy"


class TooMany(PaasdError):
    status = 429
    code = "too-many-requests"


class QuotaExceeded(PaasdError):
    status = 403
    code = "quota-exceeded"


class DeployFailed(PaasdError):
    status = 422
    code = "deploy-failed"


class BuildFailed(DeployFailed):
    code = "build-failed"
    log_tail: tuple[str, ...] = ()
    """The last lines of the step that failed."""


class ReleaseTaskFailed(DeployFailed):
    code = "release-task-failed"


class CanaryFailed(DeployFailed):
    code = "canary-failed"


class HealthCheckFailed(DeployFailed):
    code = "health-check-failed"


class EngineError(PaasdError):
    status = 502
    code = "engine-error"
    hint = "Look at the engine's state with: paasd doctor"


class EngineNotFound(EngineError):
    code = "engine-not-found"


class EngineConflict(EngineError):
    code = "engine-conflict"


class EngineUnavailable(EngineError):
    status = 503
    code = "engine-unavailable"
    hint = "Start the Docker engine, then check with: paasd doctor"


class EdgeError(PaasdError):
    status = 502
    code = "edge-error"
    hint = "Check the edge with: paasd doctor"


class InvalidSite(EdgeError):
    status = 422
    code = "invalid-site"


class CertificateError(PaasdError):
    status = 502
    code = "certificate-error"
    hint = "See which names wait for what with: certs:report APP"

    def __init__(
        self, detail: str, *, hint: str = "", names: Mapping[str, str] | None = None, wait: float | None = None
    ) -> None:
        super().__init__(detail, hint=hint)
        self.names = dict(names or {})
        """Why, by host name, where it was for some of them only."""
        self.wait = wait
        """Seconds that the authority asked to wait."""


class DiskFull(PaasdError):
    status = 507
    code = "disk-full"


class DatabaseDamaged(PaasdError):
    code = "database-damaged"


_DAMAGE = ("malformed", "not a database", "disk I/O error")
"""What SQLite calls it: SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_IOERR."""


def from_exception(error: BaseException) -> PaasdError | None:
    """A foreign exception that users can do something about, in the words of the tree; None for a defect."""
    if isinstance(error, PaasdError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"the disk is full: {error}", hint="Free space, for example with: paasd cleanup")
    if isinstance(error, sqlite3.DatabaseError) and any(text in str(error) for text in _DAMAGE):
        return DatabaseDamaged(
            f"the database is damaged: {error}",
            hint="Stop paasd and restore the newest backup of state.db; the apps keep serving meanwhile.",
        )
    return None


def from_problem(problem: dict[str, Any]) -> PaasdError:
    """The error a client rebuilds from problem details it received; unknown codes become the base class."""
    cls = _BY_CODE.get(str(problem.get("code")), PaasdError)
    return cls(str(problem.get("detail", "the daemon gave no reason")), hint=str(problem.get("hint", "")))


def _tree(cls: type[PaasdError]) -> list[type[PaasdError]]:
    return [cls, *(sub for child in cls.__subclasses__() for sub in _tree(child))]


_BY_CODE = {cls.code: cls for cls in _tree(PaasdError)}
