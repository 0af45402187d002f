-- One-off commands that run or ran, and those of the schedule that should have. `kind`: attached ones end with their
-- client and the daemon, the others go on without either. `ends_by`: when their time is over. `output`: the last lines.
CREATE TABLE one_offs (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('attached', 'detached', 'cron')),
    container TEXT NOT NULL,
    release INTEGER,
    command TEXT NOT NULL,
    cron_entry INTEGER,
    due_at REAL,
    status TEXT NOT NULL,
    exit_code INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    output TEXT NOT NULL DEFAULT '[]',
    created_by TEXT NOT NULL,
    created_at REAL NOT NULL,
    ends_by REAL NOT NULL,
    finished_at REAL,
    UNIQUE (app_id, number)
) STRICT;
CREATE INDEX one_offs_running ON one_offs (created_at) WHERE status = 'running';
CREATE INDEX one_offs_by_entry ON one_offs (app_id, cron_entry, number);

-- When commands are to run. Those of app.json are replaced with each release; `next_at` is NULL while suspended.
CREATE TABLE cron_entries (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('app.json', 'cron:add')),
    schedule TEXT NOT NULL,
    command TEXT NOT NULL,
    timezone TEXT NOT NULL,
    concurrency TEXT NOT NULL CHECK (concurrency IN ('allow', 'forbid', 'replace')),
    suspended INTEGER NOT NULL DEFAULT 0,
    next_at REAL,
    created_by TEXT NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (app_id, number)
) STRICT;

-- The queue `cron`, which nothing slow shares, is a new value of a column that is checked.
CREATE TABLE jobs_with_cron (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    organization_id TEXT REFERENCES organizations (id) ON DELETE CASCADE,
    app_id TEXT REFERENCES apps (id) ON DELETE CASCADE,
    queue TEXT NOT NULL CHECK (queue IN ('build', 'deployment', 'cron', 'metrics', 'notification', 'cleanup')),
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
INSERT INTO jobs_with_cron SELECT * FROM jobs;
-- Numbers of jobs that are forgotten are not given again.
DELETE FROM sqlite_sequence WHERE name = 'jobs_with_cron';
INSERT INTO sqlite_sequence (name, seq) SELECT 'jobs_with_cron', seq FROM sqlite_sequence WHERE name = 'jobs';
DROP TABLE jobs;
ALTER TABLE jobs_with_cron RENAME TO jobs;
CREATE INDEX jobs_to_claim ON jobs (queue, priority DESC, run_at, id) WHERE status = 'queued';
CREATE INDEX jobs_by_time ON jobs (run_at) WHERE status = 'queued';
CREATE INDEX jobs_running ON jobs (type, key) WHERE status = 'running';
CREATE UNIQUE INDEX jobs_queued_once ON jobs (coalesce(organization_id, ''), type, key)
WHERE status = 'queued' AND key IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (status, id) WHERE status IN ('done', 'dead');
CREATE INDEX jobs_by_organization ON jobs (organization_id, id);
CREATE INDEX jobs_by_app ON jobs (app_id) WHERE app_id IS NOT NULL;
