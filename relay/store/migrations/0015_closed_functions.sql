-- The functions of this schema serve the relay alone. Every migration takes EXECUTE on them away from PUBLIC
-- (relay/store/migrate.py). The trigger functions run with their owner's rights, so each one also checks which table
-- fired it, and `roll_up` reads the rows only after it knows that no column has a type of the table owner's own: a cast
-- or an operator of such a type is a function of theirs.

-- The one table whose facts are rolled up. Held as an object id: it follows a rename and a change of schema.
CREATE TABLE relay.fact_tables (
    facts regclass PRIMARY KEY
);
INSERT INTO relay.fact_tables VALUES ('dashboard_facts'::regclass);

-- The functions that queries call have no search_path of their own, so that Postgres can inline them. Each operator and
-- function in them is therefore given arguments of exactly the types that Postgres's own has: those win over any that
-- another login makes in a schema of the caller's search_path.
-- `[.]`, not `\.`: what a backslash means in a string is a setting of the caller's session.
CREATE OR REPLACE FUNCTION relay.whole(figure text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN figure ~ '^[0-9]{1,12}([.][0-9]{1,20})?$'::text THEN round(figure::numeric)::bigint ELSE 0 END
$$;

CREATE OR REPLACE FUNCTION relay.tally(fact_type text, fact jsonb, metadata jsonb)
    RETURNS TABLE (test boolean, success boolean, attempts integer, final_status text, slot smallint, facts bigint, duration_ms bigint)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(metadata ->> 'test'::text, '') = 'true'::text,
           coalesce(fact ->> 'success'::text, '') = 'true'::text,
           least(relay.whole(fact ->> 'attempts'::text), 1000)::integer,
           left(coalesce(fact ->> 'finalStatus'::text, fact ->> 'reason'::text, ''), 100),
           floor(8::float8 * ln((relay.whole(fact ->> 'durationMs'::text) + 1::bigint)::float8) / ln(2::float8))::smallint,
           CASE WHEN fact_type = 'support.webhook.rejected'::text
                THEN greatest(relay.whole(fact ->> 'count'::text), 1) ELSE 1 END,
           relay.whole(fact ->> 'durationMs'::text)
$$;

CREATE OR REPLACE FUNCTION relay.payload(body bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN convert_from(body, 'UTF8'::name)::jsonb;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

-- A column's value as jsonb, whichever of these types the column has; NULL where it is no JSON, or JSON that jsonb
-- refuses.
CREATE FUNCTION relay.json_or_null(given jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT given';
CREATE FUNCTION relay.json_or_null(given text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN given::jsonb;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;
CREATE FUNCTION relay.json_or_null(given json) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
    'SELECT relay.json_or_null(given::text)';

-- Whether facts of other column types can be counted: json, text or a domain in place of jsonb, an enum as the type, a
-- date as the time. False where a column is missing or has any other type.
CREATE FUNCTION relay.facts_are_readable(relation oid) RETURNS boolean LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) = 4
      FROM relay.fact_tables f JOIN pg_attribute a ON a.attrelid = f.facts
      JOIN pg_type t ON t.oid = a.atttypid
     CROSS JOIN LATERAL (SELECT coalesce(nullif(t.typbasetype, 0), t.oid) AS type) AS base
     WHERE f.facts = relation AND NOT a.attisdropped
       AND CASE WHEN a.attname IN ('value', 'metadata')
                THEN base.type IN ('jsonb'::regtype, 'json'::regtype, 'text'::regtype, 'varchar'::regtype)
                WHEN a.attname = 'fact_type'
                THEN base.type IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) OR t.typtype = 'e'
                WHEN a.attname = 'recorded_at'
                THEN base.type IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
                ELSE false END
$$;

-- The first statement is the usual one. The second one reads columns by their output functions (`format`), which are
-- Postgres's own for every type that `facts_are_readable` knows; a cast could be the table owner's.
-- The trigger that fires must have its rows in a transition table named `changed`: where it has none, that name could be
-- a table of the session's own. Such a trigger may be older than the closing of these functions.
-- Times outside the years 1 to 9999 belong to no window, and some of them do not fit a timestamptz.
CREATE OR REPLACE FUNCTION relay.roll_up() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sign integer := CASE TG_ARGV[0] WHEN '1' THEN 1 WHEN '-1' THEN -1 END;
    usual boolean;                                -- NULL where this trigger must count nothing
BEGIN
    SELECT (SELECT count(*) = 4 FROM pg_attribute a
             WHERE a.attrelid = t.tgrelid AND a.attname IN ('fact_type', 'value', 'metadata', 'recorded_at')
               AND (a.attname, a.atttypid) IN (
                   ('value', 'jsonb'::regtype::oid), ('metadata', 'jsonb'::regtype::oid),
                   ('fact_type', 'text'::regtype::oid), ('fact_type', 'varchar'::regtype::oid),
                   ('recorded_at', 'timestamptz'::regtype::oid), ('recorded_at', 'timestamp'::regtype::oid)))
      INTO usual
      FROM pg_trigger t
     WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME AND 'changed' IN (t.tgnewtable, t.tgoldtable)
       AND EXISTS (SELECT FROM relay.fact_tables f WHERE f.facts = t.tgrelid);
    IF sign IS NULL OR usual IS NULL THEN
        RETURN NULL;
    ELSIF usual THEN
        WITH tallied AS (
            SELECT date_trunc('minute', c.recorded_at) AS minute, c.fact_type AS fact_type, t.test, t.success, t.attempts,
                   t.final_status, t.slot, sign * sum(t.facts) AS facts, sign * sum(t.duration_ms) AS duration_ms
              FROM changed c
             CROSS JOIN LATERAL relay.tally(c.fact_type, c.value,
                                            c.metadata) t
             WHERE c.fact_type IN ('support.webhook.retry', 'support.webhook.dead_letter', 'support.webhook.replay',
                                   'support.webhook.rejected')
               AND c.recorded_at BETWEEN '0001-01-01' AND '9999-12-31'
             GROUP BY 1, 2, 3, 4, 5, 6, 7
        ), of_minutes AS (
            INSERT INTO relay.minutes AS m
            SELECT minute, fact_type, test, success, attempts, final_status, slot, pg_backend_pid(), facts, duration_ms
              FROM tallied
            ON CONFLICT ON CONSTRAINT minutes_key
                DO UPDATE SET facts = m.facts + excluded.facts, duration_ms = m.duration_ms + excluded.duration_ms
        )
        INSERT INTO relay.hours AS h
        SELECT date_trunc('hour', minute, 'UTC'), fact_type, test, success, attempts, final_status, slot,
               pg_backend_pid(), sum(facts), sum(duration_ms)
          FROM tallied GROUP BY 1, 2, 3, 4, 5, 6, 7
        ON CONFLICT ON CONSTRAINT hours_key
            DO UPDATE SET facts = h.facts + excluded.facts, duration_ms = h.duration_ms + excluded.duration_ms;
    ELSIF relay.facts_are_readable(TG_RELID) THEN
        WITH tallied AS (
            SELECT date_trunc('minute', c.recorded_at) AS minute, rtrim(format('%s', c.fact_type)) AS fact_type, t.test, t.success, t.attempts,
                   t.final_status, t.slot, sign * sum(t.facts) AS facts, sign * sum(t.duration_ms) AS duration_ms
              FROM changed c
             CROSS JOIN LATERAL (SELECT relay.json_or_null(format('%s', c.value)) AS value OFFSET 0) AS parsed
             CROSS JOIN LATERAL relay.tally(rtrim(format('%s', c.fact_type)), parsed.value,
                                            relay.json_or_null(format('%s', c.metadata))) t
             WHERE rtrim(format('%s', c.fact_type)) IN ('support.webhook.retry', 'support.webhook.dead_letter', 'support.webhook.replay',
                                   'support.webhook.rejected')
               AND c.recorded_at BETWEEN '0001-01-01' AND '9999-12-31'
               AND (parsed.value IS NOT NULL OR c.value IS NULL)
             GROUP BY 1, 2, 3, 4, 5, 6, 7
        ), of_minutes AS (
            INSERT INTO relay.minutes AS m
            SELECT minute, fact_type, test, success, attempts, final_status, slot, pg_backend_pid(), facts, duration_ms
              FROM tallied
            ON CONFLICT ON CONSTRAINT minutes_key
                DO UPDATE SET facts = m.facts + excluded.facts, duration_ms = m.duration_ms + excluded.duration_ms
        )
        INSERT INTO relay.hours AS h
        SELECT date_trunc('hour', minute, 'UTC'), fact_type, test, success, attempts, final_status, slot,
               pg_backend_pid(), sum(facts), sum(duration_ms)
          FROM tallied GROUP BY 1, 2, 3, 4, 5, 6, 7
        ON CONFLICT ON CONSTRAINT hours_key
            DO UPDATE SET facts = h.facts + excluded.facts, duration_ms = h.duration_ms + excluded.duration_ms;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION relay.forget_minutes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' AND EXISTS (SELECT FROM relay.fact_tables WHERE facts = TG_RELID) THEN
        DELETE FROM relay.minutes;
        DELETE FROM relay.hours;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION relay.count_dead() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sign integer := CASE TG_ARGV[0] WHEN '1' THEN 1 WHEN '-1' THEN -1 END;
BEGIN
    IF sign IS NOT NULL AND TG_RELID = to_regclass('relay.deliveries') THEN
        INSERT INTO relay.dead_causes AS c
        SELECT coalesce(final_status, ''), coalesce(last_error, ''), coalesce(event, ''), pg_backend_pid(),
               sign * count(*)
          FROM changed WHERE state = 'dead' GROUP BY 1, 2, 3
        ON CONFLICT ON CONSTRAINT dead_causes_key DO UPDATE SET letters = c.letters + excluded.letters;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION relay.forget_dead() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' AND TG_RELID = to_regclass('relay.deliveries') THEN
        DELETE FROM relay.dead_causes;
    END IF;
    RETURN NULL;
END
$$;

-- Queries call these with the caller's rights, so each role that reads the tables may do so.
DO $$
DECLARE
    reader text;
BEGIN
    FOR reader IN
        SELECT DISTINCT quote_ident(r.rolname)
          FROM pg_class c, aclexplode(c.relacl) AS granted JOIN pg_roles r ON r.oid = granted.grantee
         WHERE c.oid IN ('relay.minutes'::regclass, 'relay.deliveries'::regclass) AND granted.privilege_type = 'SELECT'
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION relay.whole(text), relay.tally(text, jsonb, jsonb), relay.payload(bytea), '
                'relay.json_or_null(jsonb), relay.json_or_null(json), relay.json_or_null(text) TO ' || reader;
        EXECUTE 'GRANT SELECT ON relay.fact_tables TO ' || reader;
    END LOOP;
END
$$;
