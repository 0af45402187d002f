-- Identifiers are 122-bit random (uuid4 hex), times are seconds since the epoch, JSON columns hold objects.
CREATE TABLE organizations (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE memberships (
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'viewer')),
    PRIMARY KEY (organization_id, user_id)
) STRICT;

CREATE TABLE ssh_keys (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    key_type TEXT NOT NULL,
    key_blob BLOB NOT NULL UNIQUE,
    fingerprint TEXT NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (organization_id, name)
) STRICT;

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    subnet TEXT UNIQUE,
    created_at REAL NOT NULL,
    UNIQUE (organization_id, name)
) STRICT;

CREATE TABLE project_members (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('admin', 'developer', 'viewer')),
    PRIMARY KEY (project_id, user_id)
) STRICT;

-- App names are unique on the box, since each is a host name under the box's domain.
CREATE TABLE apps (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL UNIQUE,
    environment TEXT NOT NULL DEFAULT 'production' CHECK (environment IN ('production', 'staging', 'preview')),
    deploy_branch TEXT,
    release_id TEXT REFERENCES releases (id) DEFERRABLE INITIALLY DEFERRED,
    stopped INTEGER NOT NULL DEFAULT 0,
    scale TEXT NOT NULL DEFAULT '{}',
    checks TEXT NOT NULL DEFAULT '{}',
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE config_vars (
    organization_id TEXT NOT NULL,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (app_id, name)
) STRICT;

CREATE TABLE domains (
    name TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    revision TEXT NOT NULL,
    branch TEXT NOT NULL,
    pushed_by TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    image TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    UNIQUE (app_id, number)
) STRICT;

CREATE TABLE releases (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    build_id TEXT REFERENCES builds (id) ON DELETE SET NULL,
    image TEXT NOT NULL,
    run_as TEXT,
    config BLOB NOT NULL,
    process_types TEXT NOT NULL,
    checks TEXT NOT NULL,
    description TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (app_id, number)
) STRICT;

-- Only the link to a pruned build may go.
CREATE TRIGGER releases_are_immutable BEFORE UPDATE ON releases
WHEN new.build_id IS NOT NULL
    OR (old.id, old.number, old.image, old.config, old.process_types, old.checks)
    != (new.id, new.number, new.image, new.config, new.process_types, new.checks)
BEGIN
    SELECT RAISE(ABORT, 'a release is immutable');
END;

CREATE TABLE deployments (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    build_id TEXT REFERENCES builds (id) ON DELETE SET NULL,
    release_id TEXT REFERENCES releases (id) ON DELETE CASCADE,
    status TEXT NOT NULL,
    phase TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    created_by TEXT NOT NULL,
    created_at REAL NOT NULL,
    finished_at REAL,
    UNIQUE (app_id, number)
) STRICT;

-- Desired instances; what really runs is asked from the driver.
CREATE TABLE instances (
    name TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id),
    release_id TEXT NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
    deployment_id TEXT REFERENCES deployments (id) ON DELETE SET NULL,
    process_type TEXT NOT NULL,
    number INTEGER NOT NULL,
    address TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('new', 'live', 'retiring')),
    retire_at REAL,
    created_at REAL NOT NULL,
    UNIQUE (project_id, address)
) STRICT;

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    type TEXT NOT NULL,
    organization_id TEXT NOT NULL,
    app TEXT,
    actor TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;

CREATE INDEX events_by_app ON events (organization_id, app, id);
CREATE INDEX builds_by_status ON builds (status);
CREATE INDEX deployments_by_status ON deployments (status);
CREATE INDEX instances_by_app ON instances (app_id);
