-- What `checks:set` said was of startup checks; there are liveness and readiness checks beside them now.
UPDATE apps SET checks = (
    SELECT json_group_object(key, json_object('startup', json(value))) FROM json_each(apps.checks)
) WHERE checks != '{}';
