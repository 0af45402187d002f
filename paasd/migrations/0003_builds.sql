CREATE TABLE build_settings (
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (app_id, key)
) STRICT;

-- What a build decided and did. `inputs` is a hash of all that goes into the image: the same inputs give the same image.
ALTER TABLE builds ADD COLUMN buildpack TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN versions TEXT NOT NULL DEFAULT '{}';
ALTER TABLE builds ADD COLUMN reasons TEXT NOT NULL DEFAULT '[]';
ALTER TABLE builds ADD COLUMN phases TEXT NOT NULL DEFAULT '{}';
ALTER TABLE builds ADD COLUMN steps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN cached_steps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN image_size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN inputs TEXT NOT NULL DEFAULT '';
CREATE INDEX builds_by_inputs ON builds (app_id, inputs);

-- `formation`, `cron` and `scripts` of app.json, as the release was built with them.
ALTER TABLE releases ADD COLUMN app_json TEXT NOT NULL DEFAULT '{}';
-- $PORT of its web instances; NULL is the box's usual one.
ALTER TABLE releases ADD COLUMN port INTEGER;

CREATE TABLE registries (
    app_id TEXT PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server TEXT NOT NULL,
    user TEXT NOT NULL,
    password BLOB NOT NULL,
    automatic INTEGER NOT NULL
) STRICT;

CREATE TABLE published_images (
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    release INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    published_at REAL NOT NULL
) STRICT;
CREATE INDEX published_images_by_app ON published_images (app_id, published_at);
