-- Facts that dashboard_facts refuses, or does not take in time, wait in relay.facts_aside (DESIGN, 1, promise 4): a
-- delivery ends without them, and the relay moves them over once dashboard_facts accepts them.

CREATE TABLE relay.facts_aside (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),  -- recorded_at, once the fact moves over
    delivery_id text,
    fact_type   text NOT NULL,
    scope       text NOT NULL,
    value       jsonb NOT NULL,
    metadata    jsonb,
    payload     text,                                -- JSON text that is not part of value yet
    refused     boolean NOT NULL,                    -- false: only late
    reason      text,                                -- SQLSTATE and names, never a row's values; NULL: not tried yet
    tries       integer NOT NULL DEFAULT 0,          -- those that failed
    tried_at    timestamptz
);
CREATE INDEX facts_aside_next ON relay.facts_aside (tried_at NULLS FIRST, id);

-- Why a statement on dashboard_facts failed: SQLSTATE and the names of trigger, constraint and column. Postgres's own
-- message is added only where it holds nothing but names (class 42, raised by the statement itself).
CREATE FUNCTION relay.refusal(
    sqlstate_ text, message text, context text, constraint_ text, column_ text, fact_type text, fact_scope text
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ', sqlstate_,
        (SELECT 'trigger ' || quote_ident(t.tgname) FROM pg_catalog.pg_trigger t
          WHERE t.tgrelid = 'dashboard_facts'::regclass AND NOT t.tgisinternal
            AND strpos(context, t.tgfoid::regprocedure::text) > 0 ORDER BY t.tgname LIMIT 1),
        (SELECT 'constraint ' || quote_ident(n.name) FROM (
            SELECT conname AS name FROM pg_catalog.pg_constraint WHERE conname = constraint_
             UNION SELECT relname FROM pg_catalog.pg_class WHERE relname = constraint_) AS n LIMIT 1),
        (SELECT 'column ' || quote_ident(a.attname) FROM pg_catalog.pg_attribute a WHERE a.attname = column_ LIMIT 1),
        (SELECT format('column %I %s', a.attname, format_type(a.atttypid, a.atttypmod)) FROM pg_catalog.pg_attribute a
          WHERE sqlstate_ = '22001' AND a.attrelid = 'dashboard_facts'::regclass AND a.atttypmod > 4
            AND length(CASE a.attname WHEN 'fact_type' THEN fact_type WHEN 'scope' THEN fact_scope END) > a.atttypmod - 4
          ORDER BY a.attnum LIMIT 1),
        CASE WHEN left(sqlstate_, 2) = '42'
              AND split_part(context, E'\n', 1) ~ 'dashboard_facts|relay\.(write|restore)_facts\(' THEN message END)
$$;

-- Writes facts into dashboard_facts: all at once or, where that fails, one by one. What is refused goes aside with the
-- reason; so does what is late: what waits for a lock, what the caller's statement_timeout cuts off, what comes after
-- 0.3 s of refusals, and everything if `now_` is false. Raises nothing that dashboard_facts causes.
CREATE FUNCTION relay.write_facts(
    facts jsonb[], fact_scope text, now_ boolean, OUT refused integer, OUT late integer, OUT reason text
) LANGUAGE plpgsql SET lock_timeout = '150ms' AS $$
#variable_conflict use_column
DECLARE
    began   CONSTANT timestamptz := clock_timestamp();
    is_late CONSTANT text[] := ARRAY['57014', '55P03', '40001', '40P01', '53000', '53100', '53200', '53300', '53400'];
    fact    record;
    whole   jsonb;
    notes   jsonb;
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
            RETURN;
        EXCEPTION WHEN query_canceled OR OTHERS THEN
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
                CONTINUE;
            EXCEPTION WHEN query_canceled OR OTHERS THEN
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
-- tried yet first, and none that was tried in the last 50 s. `cut` is true, and nothing has changed, if several did not go over within the caller's
-- statement_timeout: then each needs a call of its own.
CREATE FUNCTION relay.restore_facts(
    most integer, OUT moved integer, OUT refused integer, OUT late integer, OUT cut boolean, OUT reason text
) LANGUAGE plpgsql SET lock_timeout = '300ms' AS $$
#variable_conflict use_column
DECLARE
    began   CONSTANT timestamptz := clock_timestamp();
    is_late CONSTANT text[] := ARRAY['55P03', '40001', '40P01', '53000', '53100', '53200', '53300', '53400'];
    ids     bigint[];
    one     bigint[];
    fact    relay.facts_aside;
    state text; message text; context text; constraint_ text; column_ text;
BEGIN
    moved := 0;
    refused := 0;
    late := 0;
    cut := false;
    SELECT array_agg(n.id) INTO ids
      FROM (SELECT id FROM relay.facts_aside WHERE tried_at IS NULL OR tried_at < now() - interval '50 s'
             ORDER BY tried_at NULLS FIRST, id LIMIT most FOR UPDATE SKIP LOCKED) AS n;
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
            moved := moved + cardinality(one);
            EXIT WHEN n = 0;
            CONTINUE;
        EXCEPTION WHEN query_canceled OR OTHERS THEN
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

-- The functions find dashboard_facts where this migration found it, with whatever search_path they are called.
DO $$
DECLARE
    path text := concat_ws(', ', 'pg_catalog',
        (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'dashboard_facts'::regclass),
        nullif(current_setting('search_path'), ''), 'pg_temp');
    grantee record;
BEGIN
    EXECUTE 'ALTER FUNCTION relay.refusal(text, text, text, text, text, text, text) SET search_path = ' || path;
    EXECUTE 'ALTER FUNCTION relay.write_facts(jsonb[], text, boolean) SET search_path = ' || path;
    EXECUTE 'ALTER FUNCTION relay.restore_facts(integer) SET search_path = ' || path;
    REVOKE ALL ON FUNCTION relay.refusal(text, text, text, text, text, text, text),
        relay.write_facts(jsonb[], text, boolean), relay.restore_facts(integer) FROM PUBLIC;

    -- Whoever may write or read attempts may do so with facts aside.
    FOR grantee IN
        SELECT r.rolname AS name, string_agg(a.privilege_type, ', ') AS rights,
               bool_or(a.privilege_type = 'INSERT') AS writes
          FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS a JOIN pg_roles r ON r.oid = a.grantee
         WHERE c.oid = 'relay.attempts'::regclass AND a.grantee <> c.relowner
           AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
         GROUP BY r.rolname
    LOOP
        EXECUTE format('GRANT %s ON relay.facts_aside TO %I', grantee.rights, grantee.name);
        IF grantee.writes THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION relay.refusal(text, text, text, text, text, text, text), '
                           'relay.write_facts(jsonb[], text, boolean), relay.restore_facts(integer) TO %I',
                           grantee.name);
        END IF;
    END LOOP;
END
$$;
