-- By the project's name, so that a quota outlives a project that is destroyed and made again; '' is the whole
-- organization.
CREATE TABLE quotas (
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    project TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (organization_id, project, key)
) STRICT;

-- One row a build that was asked for, kept for a day: rows of `builds` go with their app.
CREATE TABLE build_requests (
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    project TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE INDEX build_requests_by_time ON build_requests (organization_id, at);

-- What was measured last; bytes.
CREATE TABLE disk_use (
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    project TEXT NOT NULL,
    volumes INTEGER NOT NULL,
    snapshots INTEGER NOT NULL,
    images INTEGER NOT NULL,
    repositories INTEGER NOT NULL,
    measured_at REAL NOT NULL,
    PRIMARY KEY (organization_id, project)
) STRICT;

-- A stopped app that gets a release starts nothing.
ALTER TABLE deployments ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0;
CREATE INDEX deployments_running ON deployments (organization_id) WHERE status = 'running';
CREATE INDEX builds_unfinished ON builds (organization_id) WHERE status IN ('queued', 'running');
