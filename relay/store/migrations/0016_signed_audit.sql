-- What operators write is checked, signed and kept. They call functions instead of inserting rows, each row of the audit
-- and each replay plan carries the database login beside the operator's own name, and the audit is append-only.

-- A plan that cannot be sent is stopped when a relay claims it, with a reason. These two would make that update fail.
ALTER TABLE relay.replay_plans
    DROP CONSTRAINT IF EXISTS replay_plans_rate_is_finite,
    DROP CONSTRAINT IF EXISTS replay_plans_edit_is_of_one,
    ADD COLUMN login text;                        -- the database login of the session that asked; NULL before this column
ALTER TABLE relay.operator_actions
    ADD COLUMN login text;
ALTER TABLE relay.replay_plans ALTER COLUMN login SET DEFAULT session_user;
ALTER TABLE relay.operator_actions ALTER COLUMN login SET DEFAULT session_user;

-- Discards that a relay has to carry out, and what came of them. The audit names the deliveries.
CREATE TABLE relay.discards (
    action     bigint PRIMARY KEY,                -- relay.operator_actions.id
    applied_at timestamptz,
    result     jsonb
);
CREATE INDEX discards_open ON relay.discards (action) WHERE applied_at IS NULL;
INSERT INTO relay.discards (action)
SELECT id FROM relay.operator_actions WHERE action = 'discard' AND applied_at IS NULL;

-- `applied_at` and `result` of the audit describe discards from before `relay.discards`. A relay of that version looks
-- for discards without an `applied_at`; it must find none, because it would carry them out and update the audit.
UPDATE relay.operator_actions SET applied_at = now() WHERE action = 'discard' AND applied_at IS NULL;

-- Text that an operator typed, on one line and of `most` characters at most. Control characters and those that are
-- invisible or turn the reading direction become U+FFFD.
CREATE FUNCTION relay.plain_text(given text, most integer) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT regexp_replace(
        CASE WHEN length(given) > most THEN left(given, most - 1) || E'\u2026' ELSE given END,
        E'[\\u0001-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f'
        '\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\U000e0000-\\U000e0fff]',
        E'\uFFFD', 'g')
$$;

CREATE FUNCTION relay.plain_name(given text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(btrim(relay.plain_text(btrim(given), 100)), ''), session_user)
$$;

CREATE FUNCTION relay.sign_plan() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.login := session_user;
    NEW.requested_by := relay.plain_name(NEW.requested_by);
    NEW.reason := relay.plain_text(NEW.reason, 2000);
    NEW.filter := relay.plain_text(NEW.filter, 2000);
    RETURN NEW;
END
$$;
CREATE TRIGGER relay_signed BEFORE INSERT ON relay.replay_plans FOR EACH ROW EXECUTE FUNCTION relay.sign_plan();

CREATE FUNCTION relay.sign_action() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.login := session_user;
    NEW.operator := relay.plain_name(NEW.operator);
    NEW.action := relay.plain_text(NEW.action, 100);
    NEW.reason := relay.plain_text(NEW.reason, 2000);
    IF NEW.action = 'discard' THEN
        INSERT INTO relay.discards (action) VALUES (NEW.id);
        NEW.applied_at := coalesce(NEW.applied_at, now());
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER relay_signed BEFORE INSERT ON relay.operator_actions
    FOR EACH ROW EXECUTE FUNCTION relay.sign_action();

CREATE FUNCTION relay.keep_audit() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'relay.operator_actions is append-only: % is refused', TG_OP USING ERRCODE = 'RL001';
END
$$;
CREATE TRIGGER relay_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON relay.operator_actions
    FOR EACH STATEMENT EXECUTE FUNCTION relay.keep_audit();

-- Raised for what these functions refuse (SQLSTATE RL001). The text quotes no value of the caller's.
CREATE FUNCTION relay.refuse(why text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%', why USING ERRCODE = 'RL001';
END
$$;

-- What is wrong with a list of deliveries; NULL if nothing is.
CREATE FUNCTION relay.fault_of_deliveries(deliveries bigint[]) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    given CONSTANT integer := cardinality(deliveries);
    known integer;
BEGIN
    IF deliveries IS NULL OR array_ndims(deliveries) > 1 THEN
        RETURN 'the deliveries must be a list of row ids';
    ELSIF given > 1000000 THEN
        RETURN 'more than 1,000,000 deliveries at once';
    ELSIF array_position(deliveries, NULL) IS NOT NULL OR 1 > ANY (deliveries) THEN
        RETURN 'the id of a delivery is a positive number';
    ELSIF (SELECT count(DISTINCT id) FROM unnest(deliveries) AS id) < given THEN
        RETURN 'the same delivery is named twice';
    END IF;
    SELECT count(*) INTO known FROM relay.deliveries d WHERE d.id = ANY (deliveries);
    RETURN CASE WHEN known < given THEN format('%s of the %s deliveries do not exist', given - known, given) END;
END
$$;

-- Asks for a replay: the plan, its frozen deliveries (`runs[n]` is the failed run of `deliveries[n]`) and the audit.
-- Returns the plan's id. The same login may ask again under the same request id and gets the same plan.
CREATE FUNCTION relay.ask_replay(
    request uuid, operator text, reason text, filter text, rate double precision, canary integer, stop_after integer,
    edited_body bytea, deliveries bigint[], runs integer[]
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total CONSTANT integer := cardinality(deliveries);
    plan bigint;
    own boolean;
    fault text;
    details jsonb;
BEGIN
    SELECT p.id, p.login = session_user INTO plan, own FROM relay.replay_plans p WHERE p.request_id = request;
    IF plan IS NULL THEN
        fault := CASE
            WHEN request IS NULL THEN 'a replay needs a request id'
            WHEN runs IS NULL OR cardinality(runs) IS DISTINCT FROM total OR array_ndims(runs) > 1
                THEN 'a replay needs one run for each delivery'
            WHEN array_position(runs, NULL) IS NOT NULL OR 1 > ANY (runs) THEN 'a run is a positive number'
            WHEN edited_body IS NOT NULL AND total <> 1 THEN 'an edited body needs exactly one delivery'
            WHEN length(edited_body) > 67108864 THEN 'the edited body is larger than 64 MiB'
            WHEN NOT (rate > 0 AND rate < 'Infinity') THEN 'the rate must be a positive, finite number'
            WHEN canary IS NULL OR canary < 0 THEN 'the canary must be 0 or more deliveries'
            WHEN stop_after IS NULL OR stop_after < 0 THEN 'the limit of failures must be 0 or more'
        END;
        fault := coalesce(fault, relay.fault_of_deliveries(deliveries));
        IF fault IS NOT NULL THEN
            PERFORM relay.refuse('The replay is refused: ' || fault);
        END IF;
        INSERT INTO relay.replay_plans
               (request_id, requested_by, reason, filter, rate, canary, stop_after, edited_body, total)
        VALUES (request, coalesce(operator, ''), coalesce(reason, ''), coalesce(filter, ''), rate, canary, stop_after,
                edited_body, total)
            ON CONFLICT ON CONSTRAINT replay_plans_request_id_key DO NOTHING
        RETURNING id, relay.replay_plans.filter INTO plan, filter;
        IF plan IS NOT NULL THEN
            INSERT INTO relay.replay_items (plan_id, position, delivery, run)
            SELECT plan, frozen.n, frozen.delivery, frozen.run
              FROM unnest(deliveries, runs) WITH ORDINALITY AS frozen(delivery, run, n);
            details := jsonb_build_object('total', total, 'filter', filter);
            IF edited_body IS NOT NULL THEN
                details := details || '{"body": "edited"}';
            END IF;
            IF total <= 5 THEN
                details := details || jsonb_build_object('deliveries', (
                    SELECT coalesce(jsonb_agg(left(d.delivery_id, 200) ORDER BY array_position(deliveries, d.id)), '[]')
                      FROM relay.deliveries d WHERE d.id = ANY (deliveries)));
            END IF;
            INSERT INTO relay.operator_actions (operator, action, plan_id, reason, details)
            VALUES (coalesce(operator, ''), 'replay', plan, coalesce(reason, ''), details);
            own := true;
        ELSE
            SELECT p.id, p.login = session_user INTO plan, own FROM relay.replay_plans p WHERE p.request_id = request;
        END IF;
    END IF;
    IF own IS NOT TRUE THEN
        PERFORM relay.refuse('The replay is refused: its request id belongs to a replay of another login');
    END IF;
    PERFORM pg_notify('relay_replay', plan::text);
    RETURN plan;
END
$$;

-- Pauses, resumes or stops a plan: the relay that works on it acts on the newest of these.
CREATE FUNCTION relay.control_replay(plan bigint, control text, operator text, reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF control IS NULL OR control NOT IN ('replay.pause', 'replay.resume', 'replay.stop') THEN
        PERFORM relay.refuse('A replay is paused, resumed or stopped (replay.pause, replay.resume, replay.stop)');
    ELSIF NOT EXISTS (SELECT FROM relay.replay_plans p WHERE p.id = plan) THEN
        PERFORM relay.refuse('There is no such replay');
    END IF;
    INSERT INTO relay.operator_actions (operator, action, plan_id, reason)
    VALUES (coalesce(operator, ''), control, plan, coalesce(reason, ''));
    PERFORM pg_notify('relay_replay', plan::text);
END
$$;

-- Asks a relay to discard dead letters. Those that are no longer dead are left as they are. Returns the action's id.
CREATE FUNCTION relay.ask_discard(deliveries bigint[], operator text, reason text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fault CONSTANT text := relay.fault_of_deliveries(deliveries);
    action bigint;
BEGIN
    IF fault IS NOT NULL THEN
        PERFORM relay.refuse('The discard is refused: ' || fault);
    END IF;
    INSERT INTO relay.operator_actions (operator, action, deliveries, reason)
    VALUES (coalesce(operator, ''), 'discard', deliveries, coalesce(reason, ''))
    RETURNING id INTO action;
    RETURN action;
END
$$;

-- Records something that an operator did and that asks nothing of a relay. Returns the action's id.
CREATE FUNCTION relay.record_action(operator text, action text, reason text, details jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id bigint;
BEGIN
    IF action IS NULL OR action NOT IN ('check-health', 'diagnose', 'escalate', 'note', 'test-webhook') THEN
        PERFORM relay.refuse('The audit knows no action of this name');
    ELSIF jsonb_typeof(details) <> 'object' OR octet_length(details::text) > 16384 THEN
        PERFORM relay.refuse('The details of an action are a JSON object of 16 KiB at most');
    END IF;
    INSERT INTO relay.operator_actions (operator, action, reason, details)
    VALUES (coalesce(operator, ''), action, coalesce(reason, ''), coalesce(details, '{}'))
    RETURNING relay.operator_actions.id INTO id;
    RETURN id;
END
$$;

-- The rights of an installation that has the roles already; `roles.sql` says the same for a new one.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'console_operator') THEN
        REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON relay.replay_plans, relay.replay_items, relay.operator_actions
          FROM console_operator;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'relay_service') THEN
        REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON relay.operator_actions FROM relay_service;
        REVOKE INSERT, UPDATE ON relay.replay_plans FROM relay_service;
        REVOKE INSERT, UPDATE, DELETE ON relay.replay_items FROM relay_service;
        REVOKE ALL ON ALL SEQUENCES IN SCHEMA relay FROM relay_service;
    END IF;
END
$$;
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['relay_service', 'console_operator', 'console_reader'] LOOP
        CONTINUE WHEN NOT EXISTS (
            SELECT FROM pg_roles WHERE rolname = role AND has_table_privilege(oid, 'relay.replay_plans', 'SELECT'));
        EXECUTE format('GRANT SELECT ON relay.discards TO %I', role);
        IF role <> 'console_reader' THEN
            EXECUTE format(
                'GRANT EXECUTE ON FUNCTION '
                'relay.ask_replay(uuid, text, text, text, double precision, integer, integer, bytea, bigint[], integer[]), '
                'relay.control_replay(bigint, text, text, text), relay.ask_discard(bigint[], text, text), '
                'relay.record_action(text, text, text, jsonb) TO %I', role);
        END IF;
        IF role = 'relay_service' THEN
            GRANT UPDATE ON relay.discards TO relay_service;
            GRANT UPDATE (state, owner, stopped_why, started_at, finished_at, total, delivered, dead, skipped)
                ON relay.replay_plans TO relay_service;
            GRANT UPDATE (state, settled_at) ON relay.replay_items TO relay_service;
        END IF;
    END LOOP;
END
$$;
