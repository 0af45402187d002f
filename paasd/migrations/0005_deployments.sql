-- Settings of apps by family: builds, deployments, and what comes later.
CREATE TABLE app_settings (
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    family TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (app_id, family, key)
) STRICT;
INSERT INTO app_settings (organization_id, app_id, family, key, value, created_at)
SELECT organization_id, app_id, 'build', key, value, created_at FROM build_settings;
DROP TABLE build_settings;

-- When each phase began, by its name.
ALTER TABLE deployments ADD COLUMN phases TEXT NOT NULL DEFAULT '{}';
ALTER TABLE deployments ADD COLUMN strategy TEXT NOT NULL DEFAULT 'rolling';
-- Until when the release is watched, and the edge's counters when that began.
ALTER TABLE deployments ADD COLUMN watch_until REAL;
ALTER TABLE deployments ADD COLUMN baseline TEXT;
CREATE INDEX deployments_watched ON deployments (watch_until) WHERE watch_until IS NOT NULL;

-- Streams may stay longer than requests; each instance keeps the times it was retired with.
ALTER TABLE instances ADD COLUMN streams_until REAL;
ALTER TABLE instances ADD COLUMN stop_timeout INTEGER;

-- Why nothing may be deployed, when somebody locked the app; and whether the script for the first deployment has run.
ALTER TABLE apps ADD COLUMN lock_reason TEXT;
ALTER TABLE apps ADD COLUMN postdeploy_at REAL;
UPDATE apps SET postdeploy_at = created_at WHERE release_id IS NOT NULL;
CREATE INDEX deployments_draining ON deployments (app_id) WHERE phase = 'draining';
