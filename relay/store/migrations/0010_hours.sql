-- Roll-ups hour by hour beside those of the minutes: a window of a day sums 24 hours and one hour's minutes, not
-- 1,440 minutes. Kept by the same triggers, in the same statement.

LOCK TABLE dashboard_facts IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE relay.hours (
    hour         timestamptz NOT NULL,
    fact_type    text NOT NULL,
    test         boolean NOT NULL,
    success      boolean NOT NULL,
    attempts     integer NOT NULL,
    final_status text NOT NULL,
    slot         smallint NOT NULL,
    writer       integer NOT NULL,
    facts        bigint NOT NULL,
    duration_ms  bigint NOT NULL,
    CONSTRAINT hours_key PRIMARY KEY (hour, fact_type, test, success, attempts, final_status, slot, writer)
) WITH (fillfactor = 70);

CREATE OR REPLACE FUNCTION relay.roll_up() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sign integer := TG_ARGV[0];
BEGIN
    WITH tallied AS (
        SELECT date_trunc('minute', c.recorded_at) AS minute, c.fact_type, t.test, t.success, t.attempts, t.final_status,
               t.slot, sign * sum(t.facts) AS facts, sign * sum(t.duration_ms) AS duration_ms
        FROM changed c CROSS JOIN LATERAL relay.tally(c.fact_type, c.value::jsonb, c.metadata::jsonb) t
        WHERE c.fact_type IN ('support.webhook.retry', 'support.webhook.dead_letter', 'support.webhook.replay', 'support.webhook.rejected')
          AND c.recorded_at IS NOT NULL
        GROUP BY 1, 2, 3, 4, 5, 6, 7
    ), of_minutes AS (
        INSERT INTO relay.minutes AS m
        SELECT minute, fact_type, test, success, attempts, final_status, slot, pg_backend_pid(), facts, duration_ms
        FROM tallied
        ON CONFLICT ON CONSTRAINT minutes_key
            DO UPDATE SET facts = m.facts + excluded.facts, duration_ms = m.duration_ms + excluded.duration_ms
    )
    INSERT INTO relay.hours AS h
    SELECT date_trunc('hour', minute, 'UTC'), fact_type, test, success, attempts, final_status, slot, pg_backend_pid(),
           sum(facts), sum(duration_ms)
    FROM tallied GROUP BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT ON CONSTRAINT hours_key
        DO UPDATE SET facts = h.facts + excluded.facts, duration_ms = h.duration_ms + excluded.duration_ms;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION relay.forget_minutes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM relay.minutes;
    DELETE FROM relay.hours;
    RETURN NULL;
END
$$;

INSERT INTO relay.hours
SELECT date_trunc('hour', minute, 'UTC'), fact_type, test, success, attempts, final_status, slot, 0, sum(facts), sum(duration_ms)
FROM relay.minutes GROUP BY 1, 2, 3, 4, 5, 6, 7;

-- Whoever may read or retire the minutes may do so with the hours.
DO $$
DECLARE
    may record;
BEGIN
    FOR may IN
        SELECT r.rolname, p.privilege
        FROM pg_roles r CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)
        WHERE r.rolname IN ('relay_service', 'console_operator', 'console_reader')
          AND has_table_privilege(r.oid, 'relay.minutes', p.privilege)
    LOOP
        EXECUTE format('GRANT %s ON relay.hours TO %I', may.privilege, may.rolname);
    END LOOP;
END
$$;
