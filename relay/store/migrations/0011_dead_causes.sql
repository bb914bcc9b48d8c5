-- The failure groups as a roll-up: how many open dead letters share status, error and event, so that they and their
-- number cost the same at a hundred thousand dead letters. Triggers keep it in the very transaction that changes a
-- delivery's state, whoever changes it. `writer` (the backend's pid, 0 for what was folded together) gives every
-- session rows of its own, so that no two writers wait for each other: a group's figure is the sum over its writers.

CREATE TABLE relay.dead_causes (
    final_status text NOT NULL,                   -- '' where the delivery has none, as for error and event
    last_error   text NOT NULL,
    event        text NOT NULL,
    writer       integer NOT NULL,
    letters      bigint NOT NULL,
    CONSTRAINT dead_causes_key PRIMARY KEY (final_status, last_error, event, writer)
) WITH (fillfactor = 70);

CREATE FUNCTION relay.count_dead() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sign integer := TG_ARGV[0];
BEGIN
    INSERT INTO relay.dead_causes AS c
    SELECT coalesce(final_status, ''), coalesce(last_error, ''), coalesce(event, ''), pg_backend_pid(), sign * count(*)
      FROM changed WHERE state = 'dead' GROUP BY 1, 2, 3
    ON CONFLICT ON CONSTRAINT dead_causes_key DO UPDATE SET letters = c.letters + excluded.letters;
    RETURN NULL;
END
$$;

CREATE FUNCTION relay.forget_dead() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM relay.dead_causes;
    RETURN NULL;
END
$$;

CREATE TRIGGER relay_inserted AFTER INSERT ON relay.deliveries REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION relay.count_dead('1');
CREATE TRIGGER relay_updated_to AFTER UPDATE ON relay.deliveries REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION relay.count_dead('1');
CREATE TRIGGER relay_updated_from AFTER UPDATE ON relay.deliveries REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION relay.count_dead('-1');
CREATE TRIGGER relay_deleted AFTER DELETE ON relay.deliveries REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION relay.count_dead('-1');
CREATE TRIGGER relay_truncated AFTER TRUNCATE ON relay.deliveries
    FOR EACH STATEMENT EXECUTE FUNCTION relay.forget_dead();

-- Those that were there before the triggers; the triggers' lock keeps everybody from adding to them meanwhile.
INSERT INTO relay.dead_causes
SELECT coalesce(final_status, ''), coalesce(last_error, ''), coalesce(event, ''), 0, count(*)
  FROM relay.deliveries WHERE state = 'dead' GROUP BY 1, 2, 3;

-- Whoever may read the deliveries may read this; the relay folds it together.
DO $$
DECLARE
    may record;
BEGIN
    FOR may IN
        SELECT r.rolname, p.privilege
        FROM pg_roles r CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)
        WHERE r.rolname IN ('relay_service', 'console_operator', 'console_reader')
          AND has_table_privilege(r.oid, 'relay.deliveries', p.privilege)
    LOOP
        EXECUTE format('GRANT %s ON relay.dead_causes TO %I', may.privilege, may.rolname);
    END LOOP;
END
$$;
