-- A fact counts as recorded only if dashboard_facts holds it: a trigger that returns NULL or a rule may drop a row
-- without an error. Then, and where a trigger's assertion fails, the fact goes aside like one that is refused.

-- Raises RL002 unless as many facts were inserted as were given.
CREATE FUNCTION relay.expect_facts(inserted bigint, given bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF inserted IS DISTINCT FROM given THEN
        RAISE EXCEPTION 'dashboard_facts drops facts without an error' USING ERRCODE = 'RL002';
    END IF;
END
$$;

-- Why a statement on dashboard_facts failed: SQLSTATE and the names of trigger, constraint and column. Postgres's own
-- message is added only where it holds nothing but names (class 42, raised by the statement itself).
CREATE OR REPLACE FUNCTION relay.refusal(
    sqlstate_ text, message text, context text, constraint_ text, column_ text, fact_type text, fact_scope text
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ', sqlstate_,
        (SELECT string_agg(dropping.name, ' ' ORDER BY dropping.name) FROM (
            SELECT 'trigger ' || quote_ident(t.tgname) AS name FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = to_regclass('dashboard_facts') AND NOT t.tgisinternal AND t.tgenabled <> 'D'
               AND t.tgtype & 7 = 7  -- before insert, for each row
             UNION ALL SELECT 'rule ' || quote_ident(r.rulename) FROM pg_catalog.pg_rewrite r
             WHERE r.ev_class = to_regclass('dashboard_facts') AND r.ev_type = '3' AND r.is_instead) AS dropping
          WHERE sqlstate_ = 'RL002'),
        (SELECT 'trigger ' || quote_ident(t.tgname) FROM pg_catalog.pg_trigger t
          WHERE t.tgrelid = to_regclass('dashboard_facts') AND NOT t.tgisinternal
            AND strpos(context, t.tgfoid::regprocedure::text) > 0 ORDER BY t.tgname LIMIT 1),
        (SELECT 'constraint ' || quote_ident(n.name) FROM (
            SELECT conname AS name FROM pg_catalog.pg_constraint WHERE conname = constraint_
             UNION SELECT relname FROM pg_catalog.pg_class WHERE relname = constraint_) AS n LIMIT 1),
        (SELECT 'column ' || quote_ident(a.attname) FROM pg_catalog.pg_attribute a WHERE a.attname = column_ LIMIT 1),
        (SELECT format('column %I %s', a.attname, format_type(a.atttypid, a.atttypmod)) FROM pg_catalog.pg_attribute a
          WHERE sqlstate_ = '22001' AND a.attrelid = to_regclass('dashboard_facts') AND a.atttypmod > 4
            AND length(CASE a.attname WHEN 'fact_type' THEN fact_type WHEN 'scope' THEN fact_scope END) > a.atttypmod - 4
          ORDER BY a.attnum LIMIT 1),
        CASE WHEN left(sqlstate_, 2) = '42'
              AND split_part(context, E'\n', 1) ~ 'dashboard_facts|relay\.(write|restore)_facts\(' THEN message END)
$$;

-- Writes facts into dashboard_facts: all at once or, where that fails, one by one. What is refused goes aside with the
-- reason; so does what is late: what waits for a lock, what the caller's statement_timeout cuts off, what comes after
-- 0.3 s of refusals, and everything if `now_` is false. Raises nothing that dashboard_facts causes.
CREATE OR REPLACE FUNCTION relay.write_facts(
    facts jsonb[], fact_scope text, now_ boolean, OUT refused integer, OUT late integer, OUT reason text
) LANGUAGE plpgsql SET lock_timeout = '150ms' AS $$
#variable_conflict use_column
DECLARE
    began   CONSTANT timestamptz := clock_timestamp();
    is_late CONSTANT text[] := ARRAY['57014', '55P03', '40001', '40P01', '53000', '53100', '53200', '53300', '53400'];
    fact    record;
    whole   jsonb;
    notes   jsonb;
    written bigint;
    state text; message text; context text; constraint_ text; column_ text;
BEGIN
    refused := 0;
    late := 0;
    IF facts IS NULL THEN
        RETURN;
    END IF;
    IF now_ THEN
        SET CONSTRAINTS ALL IMMEDIATE;  -- what would fail the commit fails here
        BEGIN
            INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
            SELECT f.fact_type, fact_scope,
                   CASE WHEN f.payload IS NULL THEN f.value
                        ELSE jsonb_build_object('payload', f.payload::jsonb) || f.value END, f.metadata
              FROM unnest(facts) AS d, jsonb_to_recordset(d) AS f(fact_type text, value jsonb, metadata jsonb, payload text);
            GET DIAGNOSTICS written = ROW_COUNT;
            PERFORM relay.expect_facts(written, (SELECT sum(jsonb_array_length(d)) FROM unnest(facts) AS d));
            RETURN;
        EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
        END;
        PERFORM set_config('lock_timeout', '10ms', true);
    END IF;
    IF NOT now_ OR state = '57014' THEN  -- a cut statement has no time limit any more: try nothing
        reason := state;
        INSERT INTO relay.facts_aside (delivery_id, fact_type, scope, value, metadata, payload, refused, reason)
        SELECT f.metadata ->> 'deliveryId', f.fact_type, fact_scope, f.value, f.metadata, f.payload, false, state
          FROM unnest(facts) AS d, jsonb_to_recordset(d) AS f(fact_type text, value jsonb, metadata jsonb, payload text);
        GET DIAGNOSTICS late = ROW_COUNT;
        RETURN;
    END IF;
    FOR fact IN
        SELECT f.* FROM unnest(facts) AS d,
               jsonb_to_recordset(d) AS f(fact_type text, value jsonb, metadata jsonb, payload text)
    LOOP
        IF now_ AND clock_timestamp() < began + interval '300 ms' THEN
            BEGIN
                whole := fact.value;
                notes := fact.metadata;
                IF fact.payload IS NOT NULL THEN
                    BEGIN
                        whole := jsonb_build_object('payload', fact.payload::jsonb) || fact.value;
                    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
                        whole := jsonb_build_object('payload', fact.payload) || fact.value;
                        notes := notes || '{"payload_altered": true}';
                    END;
                END IF;
                INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
                VALUES (fact.fact_type, fact_scope, whole, notes);
                GET DIAGNOSTICS written = ROW_COUNT;
                PERFORM relay.expect_facts(written, 1);
                CONTINUE;
            EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
                GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
                    context = PG_EXCEPTION_CONTEXT, constraint_ = CONSTRAINT_NAME, column_ = COLUMN_NAME;
            END;
            now_ := state <> '57014';
            IF state <> ALL (is_late) THEN
                refused := refused + 1;
                reason := relay.refusal(
                    state, message, context, constraint_, column_, fact.fact_type, fact_scope);
                INSERT INTO relay.facts_aside
                       (delivery_id, fact_type, scope, value, metadata, refused, reason, tries, tried_at)
                VALUES (notes ->> 'deliveryId', fact.fact_type, fact_scope, whole, notes, true, reason, 1,
                        clock_timestamp());
                CONTINUE;
            END IF;
        END IF;
        late := late + 1;
        reason := coalesce(reason, state);
        INSERT INTO relay.facts_aside (delivery_id, fact_type, scope, value, metadata, payload, refused, reason)
        VALUES (fact.metadata ->> 'deliveryId', fact.fact_type, fact_scope, fact.value, fact.metadata, fact.payload,
                false, state);
    END LOOP;
END
$$;

-- Moves up to `most` facts from relay.facts_aside into dashboard_facts with the time they were recorded at, those not
-- tried yet first, and none that was tried in the last 50 s. With a negative `most` any that are due, at random: so that
-- one which ends its session cannot keep the others waiting. `cut` is true, and nothing has changed, if several did not
-- go over within the caller's statement_timeout: then each needs a call of its own.
CREATE OR REPLACE FUNCTION relay.restore_facts(
    most integer, OUT moved integer, OUT refused integer, OUT late integer, OUT cut boolean, OUT reason text
) LANGUAGE plpgsql SET lock_timeout = '300ms' AS $$
#variable_conflict use_column
DECLARE
    began   CONSTANT timestamptz := clock_timestamp();
    is_late CONSTANT text[] := ARRAY['55P03', '40001', '40P01', '53000', '53100', '53200', '53300', '53400'];
    ids     bigint[];
    one     bigint[];
    fact    relay.facts_aside;
    written bigint;
    state text; message text; context text; constraint_ text; column_ text;
BEGIN
    moved := 0;
    refused := 0;
    late := 0;
    cut := false;
    SELECT array_agg(n.id) INTO ids
      FROM (SELECT id FROM relay.facts_aside WHERE tried_at IS NULL OR tried_at < now() - interval '50 s'
             ORDER BY CASE WHEN most < 0 THEN random() END, tried_at NULLS FIRST, id
             LIMIT abs(most) FOR UPDATE SKIP LOCKED) AS n;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    SET CONSTRAINTS ALL IMMEDIATE;
    one := ids;
    FOR n IN 0 .. cardinality(ids) LOOP  -- first all of them, then one by one
        IF n > 0 THEN
            EXIT WHEN clock_timestamp() > began + interval '1 s';
            one := ARRAY[ids[n]];
        END IF;
        BEGIN
            WITH gone AS (DELETE FROM relay.facts_aside WHERE id = ANY(one) RETURNING *)
            INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
            SELECT fact_type, scope,
                   CASE WHEN payload IS NULL THEN value
                        ELSE jsonb_build_object('payload', payload::jsonb) || value END, metadata, at
              FROM gone ORDER BY id;
            GET DIAGNOSTICS written = ROW_COUNT;
            PERFORM relay.expect_facts(written, cardinality(one));
            moved := moved + cardinality(one);
            EXIT WHEN n = 0;
            CONTINUE;
        EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
                context = PG_EXCEPTION_CONTEXT, constraint_ = CONSTRAINT_NAME, column_ = COLUMN_NAME;
        END;
        IF cardinality(one) > 1 THEN
            cut := state = '57014';
            EXIT WHEN cut;
            CONTINUE;
        END IF;
        SELECT * INTO fact FROM relay.facts_aside WHERE id = one[1];
        reason := relay.refusal(state, message, context, constraint_, column_, fact.fact_type, fact.scope);
        IF state = ANY (is_late) THEN
            late := late + 1;
        ELSE
            refused := refused + 1;
        END IF;
        UPDATE relay.facts_aside a
           SET tries = a.tries + 1, tried_at = clock_timestamp(), reason = restore_facts.reason,
               refused = a.refused OR state <> ALL (is_late)
         WHERE a.id = fact.id;
        EXIT WHEN state = '57014' OR cardinality(ids) = 1;
    END LOOP;
END
$$;

-- Makes the dashboard_facts that the search_path finds the table that facts go to and that the figures count. Does
-- nothing if it is that already. A table that was dropped and made again has another object id and no triggers.
CREATE FUNCTION relay.follow_facts() RETURNS boolean LANGUAGE plpgsql AS $follow$
DECLARE
    found CONSTANT regclass := to_regclass('dashboard_facts');
    path  CONSTANT text := concat_ws(', ', 'pg_catalog',
        (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = found),
        nullif(current_setting('search_path'), ''), 'pg_temp');
    since CONSTANT timestamptz := date_trunc('hour', now() - interval '25 hours', 'UTC');
BEGIN
    IF found IS NULL OR relay.facts_are_followed() THEN
        RETURN false;
    END IF;
    EXECUTE 'ALTER FUNCTION relay.refusal(text, text, text, text, text, text, text) SET search_path = ' || path;
    EXECUTE 'ALTER FUNCTION relay.write_facts(jsonb[], text, boolean) SET search_path = ' || path;
    EXECUTE 'ALTER FUNCTION relay.restore_facts(integer) SET search_path = ' || path;
    EXECUTE 'ALTER FUNCTION relay.facts_are_followed() SET search_path = ' || path;
    IF relay.facts_are_followed() THEN
        RETURN true;
    END IF;

    LOCK TABLE dashboard_facts IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM relay.fact_tables;
    INSERT INTO relay.fact_tables VALUES (found);
    DROP TRIGGER IF EXISTS relay_inserted ON dashboard_facts;
    DROP TRIGGER IF EXISTS relay_updated_to ON dashboard_facts;
    DROP TRIGGER IF EXISTS relay_updated_from ON dashboard_facts;
    DROP TRIGGER IF EXISTS relay_deleted ON dashboard_facts;
    DROP TRIGGER IF EXISTS relay_truncated ON dashboard_facts;
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

    -- What was written meanwhile was not counted: the last day is counted anew.
    DELETE FROM relay.minutes WHERE minute >= since;
    DELETE FROM relay.hours WHERE hour >= since;
    WITH tallied AS (
        SELECT date_trunc('minute', f.recorded_at) AS minute, rtrim(format('%s', f.fact_type)) AS fact_type, t.test,
               t.success, t.attempts, t.final_status, t.slot, sum(t.facts) AS facts, sum(t.duration_ms) AS duration_ms
          FROM dashboard_facts f
         CROSS JOIN LATERAL (SELECT relay.json_or_null(format('%s', f.value)) AS value OFFSET 0) AS parsed
         CROSS JOIN LATERAL relay.tally(rtrim(format('%s', f.fact_type)), parsed.value,
                                        relay.json_or_null(format('%s', f.metadata))) t
         WHERE rtrim(format('%s', f.fact_type)) IN ('support.webhook.retry', 'support.webhook.dead_letter',
                                                    'support.webhook.replay', 'support.webhook.rejected')
           AND f.recorded_at BETWEEN since AND '9999-12-31' AND (parsed.value IS NOT NULL OR f.value IS NULL)
           AND relay.facts_are_readable(found)
         GROUP BY 1, 2, 3, 4, 5, 6, 7
    ), of_minutes AS (
        INSERT INTO relay.minutes
        SELECT minute, fact_type, test, success, attempts, final_status, slot, 0, facts, duration_ms FROM tallied
    )
    INSERT INTO relay.hours
    SELECT date_trunc('hour', minute, 'UTC'), fact_type, test, success, attempts, final_status, slot, 0, sum(facts),
           sum(duration_ms) FROM tallied GROUP BY 1, 2, 3, 4, 5, 6, 7;
    RETURN true;
END
$follow$;

-- Whether the figures count the facts of the dashboard_facts that facts go to; false too if that table is not there.
CREATE FUNCTION relay.facts_are_followed() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM relay.fact_tables f WHERE f.facts = to_regclass('dashboard_facts'))
           AND 5 = (SELECT count(*) FROM pg_catalog.pg_trigger t
                     WHERE t.tgrelid = to_regclass('dashboard_facts') AND t.tgenabled IN ('O', 'A')
                       AND t.tgfoid IN ('relay.roll_up()'::regprocedure, 'relay.forget_minutes()'::regprocedure))
$$;

-- `CREATE OR REPLACE` took the functions' search_path away, and each needs it.
DO $$
DECLARE
    path text := concat_ws(', ', 'pg_catalog',
        (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('dashboard_facts')),
        nullif(current_setting('search_path'), ''), 'pg_temp');
    grantee text;
BEGIN
    EXECUTE 'ALTER FUNCTION relay.refusal(text, text, text, text, text, text, text) SET search_path = ' || path;
    EXECUTE 'ALTER FUNCTION relay.write_facts(jsonb[], text, boolean) SET search_path = ' || path;
    EXECUTE 'ALTER FUNCTION relay.restore_facts(integer) SET search_path = ' || path;
    EXECUTE 'ALTER FUNCTION relay.facts_are_followed() SET search_path = ' || path;
    REVOKE ALL ON FUNCTION relay.expect_facts(bigint, bigint), relay.follow_facts(), relay.facts_are_followed() FROM PUBLIC;

    -- Whoever may insert attempts records facts.
    FOR grantee IN
        SELECT DISTINCT r.rolname
          FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS a JOIN pg_roles r ON r.oid = a.grantee
         WHERE c.oid = 'relay.attempts'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'INSERT'
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION relay.expect_facts(bigint, bigint), relay.facts_are_followed() TO %I',
                       grantee);
    END LOOP;
END
$$;
