"""What a job is: its type, its queue, its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Queue(StrEnum):
    """Jobs of a queue share its slots."""

    BUILD = "build"
    DEPLOYMENT = "deployment"
    METRICS = "metrics"
    NOTIFICATION = "notification"
    CLEANUP = "cleanup"
    CRON = "cron"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    """Given up: it failed too often, or was interrupted and must not run twice."""


@dataclass(frozen=True)
class JobType:
    """A kind of job, declared once beside the code that runs it."""

    name: str
    queue: Queue
    timeout: float = 60.0
    """Seconds one attempt may take."""
    repeatable: bool = True
    """Whether it may run again when it is not known how far an attempt got."""
    max_attempts: int = 5


@dataclass(frozen=True)
class Job:
    id: int
    organization_id: str | None
    """None: the box's own."""
    app_id: str | None
    queue: Queue
    type: str
    payload: Mapping[str, Any]
    key: str | None
    """At most one job of a type and key waits, and one runs."""
    priority: int
    """Higher ones first."""
    run_at: float
    every: float | None
    """Queued again this many seconds after its end."""
    attempts: int
    max_attempts: int
    status: JobStatus
    error: str
    """Why the last attempt failed."""
    created_at: float
    started_at: float | None
    finished_at: float | None
