-- Certificates of apps. `private_key` is sealed. The edge serves one under its id, which never comes again.
CREATE TABLE certificates (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    source TEXT NOT NULL CHECK (source IN ('imported', 'acme', 'local')),
    directory TEXT NOT NULL DEFAULT '',
    names TEXT NOT NULL,
    chain TEXT NOT NULL,
    private_key BLOB NOT NULL,
    starts_at REAL NOT NULL,
    ends_at REAL NOT NULL,
    renew_at REAL,
    asked_at REAL,
    ask_after REAL,
    alarmed_at REAL,
    created_by TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX certificates_by_app ON certificates (app_id);

-- Host names that got no certificate, and when they are tried again.
CREATE TABLE certificate_troubles (
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    failures INTEGER NOT NULL,
    retry_at REAL NOT NULL,
    problem TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (app_id, name)
) STRICT;

-- Keys that the box itself has: its accounts with authorities, by directory, and its own authority's (`local`).
CREATE TABLE authority_keys (
    name TEXT PRIMARY KEY,
    private_key BLOB NOT NULL,
    uri TEXT NOT NULL DEFAULT '',
    certificate TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL
) STRICT;
