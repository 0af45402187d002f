-- Host names that only send on. `target` is a host name of the app, or a URL's beginning.
CREATE TABLE redirects (
    host TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    target TEXT NOT NULL,
    status INTEGER NOT NULL CHECK (status IN (301, 302, 307, 308)),
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX redirects_by_app ON redirects (app_id);
CREATE INDEX domains_by_app ON domains (app_id);

CREATE TRIGGER domains_are_no_redirects BEFORE INSERT ON domains
WHEN EXISTS (SELECT 1 FROM redirects WHERE host = new.name)
BEGIN
    SELECT RAISE(ABORT, 'a host name is a domain or a redirect');
END;
CREATE TRIGGER redirects_are_no_domains BEFORE INSERT ON redirects
WHEN EXISTS (SELECT 1 FROM domains WHERE name = new.host)
BEGIN
    SELECT RAISE(ABORT, 'a host name is a domain or a redirect');
END;

CREATE VIEW host_names AS
SELECT name, app_id, organization_id FROM domains
UNION ALL SELECT host, app_id, organization_id FROM redirects;

-- Domains under which every app has its name, beside the one of the configuration.
CREATE TABLE global_domains (
    name TEXT PRIMARY KEY,
    created_by TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;

-- Paths of an app that another app of its project answers.
CREATE TABLE path_routes (
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    prefix TEXT NOT NULL,
    organization_id TEXT NOT NULL,
    other_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE CHECK (other_id <> app_id),
    strip INTEGER NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (app_id, prefix)
) STRICT;
CREATE INDEX path_routes_by_other ON path_routes (other_id);
