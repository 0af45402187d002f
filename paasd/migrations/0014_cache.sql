-- What the edge's cache was told to forget. The ids grow, so that an answer is never given out again under an older one.
CREATE TABLE cache_purges (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    organization_id TEXT NOT NULL,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX cache_purges_by_app ON cache_purges (app_id);
