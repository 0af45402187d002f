-- Config vars that wait for `config:apply`; a NULL value unsets.
CREATE TABLE staged_config_vars (
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value BLOB,
    PRIMARY KEY (app_id, name)
) STRICT;

-- Apps that images move along, from one environment to the next.
CREATE TABLE pipelines (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (organization_id, name)
) STRICT;
CREATE TABLE pipeline_apps (
    app_id TEXT PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    pipeline_id TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX pipeline_apps_by_pipeline ON pipeline_apps (pipeline_id);

-- An app for each branch that was pushed beside the deploy branch.
CREATE TABLE previews (
    app_id TEXT PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    parent_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    branch TEXT NOT NULL,
    expires_at REAL NOT NULL,
    UNIQUE (parent_id, branch)
) STRICT;
