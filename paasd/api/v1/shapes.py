"""How values look in JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from paasd.build.builds import BuildRow
from paasd.identity.ssh_keys import SshKey
from paasd.jobs.job import Job
from paasd.models import App, Event, Release
from paasd.run.runs import Run


def instant(at: float | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def app_shape(app: App) -> dict[str, Any]:
    return {
        "name": app.name,
        "project": app.project,
        "release": None if app.release_number is None else f"v{app.release_number}",
        "environment": app.environment,
        "deploy_branch": app.deploy_branch,
        "stopped": app.stopped,
        "asleep": app.asleep,
        "locked": app.lock_reason,
        "scale": dict(app.scale),
        "created_at": instant(app.created_at),
    }


def release_shape(release: Release, current: str | None) -> dict[str, Any]:
    return {
        "version": release.version,
        "number": release.number,
        "description": release.description,
        "created_by": release.created_by,
        "created_at": instant(release.created_at),
        "image": release.image,
        "process_types": {p.name: p.command for p in release.process_types},
        "config": sorted(release.config),
        "live": release.id == current,
    }


def build_shape(build: BuildRow) -> dict[str, Any]:
    seconds = build.finished_at - build.started_at if build.finished_at and build.started_at else None
    return {
        "number": build.number,
        "status": build.status,
        "reason": build.reason,
        "revision": build.revision,
        "branch": build.branch,
        "pushed_by": build.pushed_by,
        "image": build.image,
        "created_at": instant(build.created_at),
        "finished_at": instant(build.finished_at),
        "seconds": seconds,
        "buildpack": build.record.buildpack,
        "versions": build.record.versions,
        "reasons": build.record.reasons,
        "phases": build.record.phases,
        "steps": build.record.steps,
        "cached_steps": build.record.cached_steps,
        "image_size": build.record.image_size,
    }


def key_shape(key: SshKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "type": key.key_type,
        "fingerprint": key.fingerprint,
        "created_at": instant(key.created_at),
    }


def run_shape(run: Run) -> dict[str, Any]:
    return {
        "number": run.number,
        "kind": run.kind,
        "status": run.status,
        "exit_code": run.exit_code,
        "reason": run.reason,
        "release": f"v{run.release}" if run.release else None,
        "command": run.command,
        "container": run.container,
        "entry": run.cron_entry,
        "due_at": instant(run.due_at),
        "created_by": run.created_by,
        "created_at": instant(run.created_at),
        "ends_by": instant(run.ends_by),
        "finished_at": instant(run.finished_at),
        "seconds": None if run.finished_at is None else max(0.0, run.finished_at - run.created_at),
    }


def event_shape(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "at": instant(event.at),
        "type": event.type,
        "app": event.app,
        "actor": event.actor,
        "data": event.data,
    }


def job_shape(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "queue": job.queue,
        "type": job.type,
        "key": job.key,
        "status": job.status,
        "priority": job.priority,
        "run_at": instant(job.run_at),
        "every": job.every,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "error": job.error,
        "payload": job.payload,
        "box": job.organization_id is None,
        "created_at": instant(job.created_at),
        "started_at": instant(job.started_at),
        "finished_at": instant(job.finished_at),
    }
