-- Roll-ups, minute by minute, so that the overview costs at ten million facts what it costs at ten thousand.
-- Triggers keep them in the very transaction that changes the facts, whoever changes them. `writer` (the
-- backend's pid) gives every session rows of its own, so that no two writers wait for each other: a minute's
-- figure is the sum over its writers, and what is deleted counts negative. `slot` is the duration's place on a
-- logarithmic scale, eight slots to a doubling: a p95 is right within 9 %.

CREATE TABLE relay.minutes (
    minute       timestamptz NOT NULL,
    fact_type    text NOT NULL,
    test         boolean NOT NULL,
    success      boolean NOT NULL,
    attempts     integer NOT NULL,
    final_status text NOT NULL,
    slot         smallint NOT NULL,
    writer       integer NOT NULL,
    facts        bigint NOT NULL,
    duration_ms  bigint NOT NULL,
    CONSTRAINT minutes_key PRIMARY KEY (minute, fact_type, test, success, attempts, final_status, slot, writer)
) WITH (fillfactor = 70);

-- A whole number out of a fact's text, and 0 for whatever else somebody's fact may hold there.
CREATE FUNCTION relay.whole(figure text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN figure ~ '^[0-9]{1,12}(\.[0-9]{1,20})?$' THEN round(figure::numeric)::bigint ELSE 0 END
$$;

-- What one fact adds to its minute. Also used for the minutes at the edges of a window, which are only partly in it.
CREATE FUNCTION relay.tally(fact_type text, fact jsonb, metadata jsonb)
    RETURNS TABLE (test boolean, success boolean, attempts integer, final_status text, slot smallint, facts bigint, duration_ms bigint)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(metadata ->> 'test', '') = 'true',
           coalesce(fact ->> 'success', '') = 'true',
           least(relay.whole(fact ->> 'attempts'), 1000)::integer,
           left(coalesce(fact ->> 'finalStatus', fact ->> 'reason', ''), 100),
           floor(8 * ln((relay.whole(fact ->> 'durationMs') + 1)::float8) / ln(2::float8))::smallint,
           CASE WHEN fact_type = 'support.webhook.rejected' THEN greatest(relay.whole(fact ->> 'count'), 1) ELSE 1 END,
           relay.whole(fact ->> 'durationMs')
$$;

CREATE FUNCTION relay.roll_up() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sign integer := TG_ARGV[0];
BEGIN
    INSERT INTO relay.minutes AS m
    SELECT date_trunc('minute', c.recorded_at), c.fact_type, t.test, t.success, t.attempts, t.final_status, t.slot,
           pg_backend_pid(), sign * sum(t.facts), sign * sum(t.duration_ms)
    FROM changed c CROSS JOIN LATERAL relay.tally(c.fact_type, c.value::jsonb, c.metadata::jsonb) t
    WHERE c.fact_type IN ('support.webhook.retry', 'support.webhook.dead_letter', 'support.webhook.replay', 'support.webhook.rejected')
      AND c.recorded_at IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT ON CONSTRAINT minutes_key
        DO UPDATE SET facts = m.facts + excluded.facts, duration_ms = m.duration_ms + excluded.duration_ms;
    RETURN NULL;
END
$$;

CREATE FUNCTION relay.forget_minutes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM relay.minutes;
    RETURN NULL;
END
$$;

CREATE TRIGGER relay_inserted AFTER INSERT ON dashboard_facts REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION relay.roll_up('1');
CREATE TRIGGER relay_updated_to AFTER UPDATE ON dashboard_facts REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION relay.roll_up('1');
CREATE TRIGGER relay_updated_from AFTER UPDATE ON dashboard_facts REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION relay.roll_up('-1');
CREATE TRIGGER relay_deleted AFTER DELETE ON dashboard_facts REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION relay.roll_up('-1');
CREATE TRIGGER relay_truncated AFTER TRUNCATE ON dashboard_facts
    FOR EACH STATEMENT EXECUTE FUNCTION relay.forget_minutes();

-- Facts of the last day that were there before the triggers.
INSERT INTO relay.minutes
SELECT date_trunc('minute', f.recorded_at), f.fact_type, t.test, t.success, t.attempts, t.final_status, t.slot,
       0, sum(t.facts), sum(t.duration_ms)
FROM dashboard_facts f CROSS JOIN LATERAL relay.tally(f.fact_type, f.value::jsonb, f.metadata::jsonb) t
WHERE f.fact_type IN ('support.webhook.retry', 'support.webhook.dead_letter', 'support.webhook.replay', 'support.webhook.rejected')
  AND f.recorded_at >= date_trunc('minute', now() - interval '25 hours')
GROUP BY 1, 2, 3, 4, 5, 6, 7;
