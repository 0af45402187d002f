-- Releases that were live, 1 the newest of its app: what a rollback can go back to.
CREATE VIEW releases_once_live AS
SELECT id, app_id, number, image, row_number() OVER (PARTITION BY app_id ORDER BY number DESC) AS age
FROM releases
WHERE id IN (SELECT release_id FROM deployments WHERE status = 'succeeded');

-- Without these each deleted row is looked for in the whole of the tables that refer to it.
CREATE INDEX releases_by_build ON releases (build_id);
CREATE INDEX deployments_by_build ON deployments (build_id);
CREATE INDEX deployments_by_release ON deployments (release_id);
CREATE INDEX instances_by_release ON instances (release_id);
CREATE INDEX instances_by_deployment ON instances (deployment_id);
CREATE INDEX apps_by_release ON apps (release_id);
CREATE INDEX apps_by_project ON apps (project_id);
