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
