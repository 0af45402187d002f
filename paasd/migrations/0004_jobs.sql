-- Work to be done, soon or at `run_at`. `key`: at most one of a type and key waits, and one runs. `every`: seconds after
-- its end it is queued again. A running job is leased to the daemon that runs it.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    organization_id TEXT REFERENCES organizations (id) ON DELETE CASCADE,
    app_id TEXT REFERENCES apps (id) ON DELETE CASCADE,
    queue TEXT NOT NULL CHECK (queue IN ('build', 'deployment', 'metrics', 'notification', 'cleanup')),
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    key TEXT,
    priority INTEGER NOT NULL,
    run_at REAL NOT NULL,
    every REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'done', 'dead')),
    error TEXT NOT NULL DEFAULT '',
    lease_owner TEXT,
    lease_until REAL,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL
) STRICT;

CREATE INDEX jobs_to_claim ON jobs (queue, priority DESC, run_at, id) WHERE status = 'queued';
CREATE INDEX jobs_by_time ON jobs (run_at) WHERE status = 'queued';
CREATE INDEX jobs_running ON jobs (type, key) WHERE status = 'running';
CREATE UNIQUE INDEX jobs_queued_once ON jobs (coalesce(organization_id, ''), type, key)
WHERE status = 'queued' AND key IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (status, id) WHERE status IN ('done', 'dead');
CREATE INDEX jobs_by_organization ON jobs (organization_id, id);
CREATE INDEX jobs_by_app ON jobs (app_id) WHERE app_id IS NOT NULL;

-- How far each subscriber inside the daemon has got with the events.
CREATE TABLE subscriptions (
    subscriber TEXT PRIMARY KEY,
    after_event INTEGER NOT NULL,
    moved_at REAL NOT NULL
) STRICT;
