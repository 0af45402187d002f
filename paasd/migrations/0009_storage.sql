-- Volumes outlive the apps that mount them. `engine_name` is what holds the data now: a restored snapshot is a new one.
CREATE TABLE volumes (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    engine_name TEXT NOT NULL UNIQUE,
    made_at REAL,
    host_path TEXT,
    quota INTEGER,
    created_at REAL NOT NULL,
    UNIQUE (organization_id, name)
) STRICT;
CREATE INDEX volumes_by_project ON volumes (project_id);

CREATE TABLE mounts (
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    volume_id TEXT NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    process_type TEXT,
    read_only INTEGER NOT NULL,
    PRIMARY KEY (app_id, path)
) STRICT;
CREATE INDEX mounts_by_volume ON mounts (volume_id);
