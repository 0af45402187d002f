-- Since when an instance that is live is kept stopped, because nobody asked for its app; NULL: it runs.
ALTER TABLE instances ADD COLUMN asleep_since REAL;
CREATE INDEX instances_asleep ON instances (app_id) WHERE asleep_since IS NOT NULL;
