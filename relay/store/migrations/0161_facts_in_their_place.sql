-- A fact counts as recorded only if it is in dashboard_facts: a rule may write it into another table instead, and Postgres
-- counts the rows of that. Such a fact goes aside.

-- How many of the rows that an INSERT reports are in dashboard_facts: none if a rule takes the place of every insert.
CREATE FUNCTION relay.kept_facts(inserted bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN EXISTS (
               SELECT FROM pg_catalog.pg_rewrite r
                WHERE r.ev_class = to_regclass('dashboard_facts') AND r.ev_type = '3' AND r.is_instead
                  AND r.ev_qual::text = '<>')
           THEN 0 ELSE inserted END
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
            PERFORM relay.expect_facts(relay.kept_facts(written), (SELECT sum(jsonb_array_length(d)) FROM unnest(facts) AS d));
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
                PERFORM relay.expect_facts(relay.kept_facts(written), 1);
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
            PERFORM relay.expect_facts(relay.kept_facts(written), cardinality(one));
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

-- `CREATE OR REPLACE` took the functions' search_path away. That of `relay.kept_facts` is its caller's.
DO $$
DECLARE
    path text := concat_ws(', ', 'pg_catalog',
        (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('dashboard_facts')),
        nullif(current_setting('search_path'), ''), 'pg_temp');
BEGIN
    EXECUTE 'ALTER FUNCTION relay.write_facts(jsonb[], text, boolean) SET search_path = ' || path;
    EXECUTE 'ALTER FUNCTION relay.restore_facts(integer) SET search_path = ' || path;
END
$$;
