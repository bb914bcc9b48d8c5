-- What operators ask for is checked once more: the bodies that they give, what a request id stands for, how much one
-- login asks for, and when.

-- The audit's time is the moment of the action: a transaction may have begun long before.
ALTER TABLE relay.operator_actions ALTER COLUMN at SET DEFAULT clock_timestamp();
ALTER TABLE relay.replay_plans ALTER COLUMN created_at SET DEFAULT clock_timestamp();

-- One login records 1,000 actions a minute at most, so that no statement fills the audit.
CREATE OR REPLACE FUNCTION relay.sign_action() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF 1000 <= (SELECT count(*) FROM (SELECT a.login, a.at FROM relay.operator_actions a ORDER BY a.id DESC LIMIT 1000) AS n
                 WHERE n.login = session_user AND n.at > clock_timestamp() - interval '1 minute') THEN
        PERFORM relay.refuse('This is refused: one login records 1,000 actions a minute at most');
    END IF;
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

-- Whether a body is a JSON object, such as those that jsonb refuses but the relay takes; NULL if there is no body.
CREATE FUNCTION relay.is_json_object(body bytea) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN json_typeof(convert_from(body, 'UTF8')::json) = 'object';
EXCEPTION WHEN OTHERS THEN
    RETURN false;
END
$$;

-- Asks for a replay: the plan, its frozen deliveries (`runs[n]` is the failed run of `deliveries[n]`) and the audit.
-- Returns the plan's id. The same login may ask for the same again under the same request id and gets the same plan.
CREATE OR REPLACE FUNCTION relay.ask_replay(
    request uuid, operator text, reason text, filter text, rate double precision, canary integer, stop_after integer,
    edited_body bytea, deliveries bigint[], runs integer[]
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total CONSTANT integer := cardinality(deliveries);
    plan bigint;
    own boolean;
    same boolean;
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
            WHEN NOT relay.is_json_object(edited_body) THEN 'the edited body is not a JSON object'
            WHEN NOT (rate >= 0.001 AND rate <= 10000) THEN 'the rate must be from 0.001 to 10,000 a second'
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
    SELECT (SELECT coalesce(array_agg(i.delivery ORDER BY i.position), '{}') = ask_replay.deliveries
                   AND coalesce(array_agg(i.run ORDER BY i.position), '{}') = ask_replay.runs
              FROM relay.replay_items i WHERE i.plan_id = p.id)
           AND (p.rate, p.canary, p.stop_after) IS NOT DISTINCT FROM
               (ask_replay.rate, ask_replay.canary, ask_replay.stop_after)
           AND p.edited_body IS NOT DISTINCT FROM ask_replay.edited_body
      INTO same FROM relay.replay_plans p WHERE p.id = plan;
    IF same IS NOT TRUE THEN
        PERFORM relay.refuse('The replay is refused: its request id belongs to another replay');
    END IF;
    PERFORM pg_notify('relay_replay', plan::text);
    RETURN plan;
END
$$;

-- What is wrong with messages that are to be stored as dead letters; NULL if nothing is.
CREATE FUNCTION relay.fault_of_backfill(ids text[], conversations text[], bodies bytea[]) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF ids IS NULL OR array_ndims(ids) > 1 OR array_ndims(conversations) > 1 OR array_ndims(bodies) > 1
       OR cardinality(ids) IS DISTINCT FROM cardinality(bodies)
       OR cardinality(ids) IS DISTINCT FROM cardinality(conversations) THEN
        RETURN 'it needs one conversation and one body for each id';
    ELSIF cardinality(ids) > 500 THEN
        RETURN 'more than 500 messages at once';
    ELSIF EXISTS (SELECT FROM unnest(ids) AS given(id) WHERE given.id IS NULL
                     OR given.id !~ '^backfill-[1-9][0-9]{0,18}-[1-9][0-9]{0,18}$') THEN
        RETURN 'an id is not backfill-ACCOUNT-MESSAGE';
    ELSIF (SELECT count(DISTINCT id) FROM unnest(ids) AS id) < cardinality(ids) THEN
        RETURN 'the same message is named twice';
    ELSIF EXISTS (SELECT FROM unnest(bodies) AS body WHERE length(body) > 4194304) THEN
        RETURN 'a body is larger than 4 MiB';
    ELSIF (SELECT sum(length(body)) FROM unnest(bodies) AS body) > 16777216 THEN
        RETURN 'more than 16 MiB at once';
    ELSIF EXISTS (
        SELECT FROM unnest(ids, conversations, bodies) AS g(id, conversation, body)
          LEFT JOIN LATERAL (SELECT relay.payload(g.body) AS payload OFFSET 0) AS p ON true
         WHERE NOT coalesce(jsonb_typeof(p.payload) = 'object'
               AND p.payload ->> 'event' = 'message_created'
               AND p.payload ->> 'message_type' IN ('incoming', '0')
               AND coalesce(p.payload ->> 'private', 'false') = 'false'
               AND jsonb_typeof(p.payload -> 'id') = 'number'
               AND jsonb_typeof(p.payload #> '{account,id}') = 'number'
               AND g.id = format('backfill-%s-%s', p.payload #>> '{account,id}', p.payload ->> 'id')
               AND g.conversation ~ '^[1-9][0-9]{0,18}$'
               AND p.payload #>> '{conversation,id}' = g.conversation, false)) THEN
        RETURN 'a body is not the message_created of a customer''s message with this account, id and conversation';
    END IF;
    RETURN NULL;
END
$$;

-- Stores messages as dead letters, so that a replay plan can send them, and records who did. Those whose id is known
-- already stay as they are. Returns the rows of all of them that are dead letters. Leaves no fact: nothing failed here.
DROP FUNCTION relay.store_backfill(text[], text[], bytea[]);
CREATE FUNCTION relay.store_backfill(ids text[], conversations text[], bodies bytea[], operator text DEFAULT '')
    RETURNS TABLE (id bigint, delivery_id text, run integer)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fault CONSTANT text := relay.fault_of_backfill(ids, conversations, bodies);
    stored integer;
BEGIN
    IF fault IS NOT NULL THEN
        PERFORM relay.refuse('The backfill is refused: ' || fault);
    END IF;
    INSERT INTO relay.deliveries AS d
           (delivery_id, claim, headers, body, event, conversation_id, customer, test, state, finished_at, attempts,
            final_status, last_error)
    SELECT g.id, gen_random_uuid(), '[["content-type", "application/json"], ["x-relay-origin", "backfill"]]', g.body,
           'message_created', g.conversation, true, false, 'dead', now(), 0, 'not_received',
           'No webhook came for this message (backfill)'
      FROM unnest(ids, conversations, bodies) AS g(id, conversation, body)
     ORDER BY g.id
        ON CONFLICT ON CONSTRAINT deliveries_delivery_id DO NOTHING;
    GET DIAGNOSTICS stored = ROW_COUNT;
    INSERT INTO relay.operator_actions (operator, action, details)
    VALUES (coalesce(operator, ''), 'backfill', jsonb_build_object(
        'asked', cardinality(ids), 'stored', stored, 'bytes', (SELECT coalesce(sum(length(b)), 0) FROM unnest(bodies) AS b),
        'first', to_jsonb(ids[1:5])));
    RETURN QUERY SELECT d.id, d.delivery_id, d.run FROM relay.deliveries d
                  WHERE d.delivery_id = ANY (ids) AND d.state = 'dead' ORDER BY array_position(ids, d.delivery_id);
END
$$;
REVOKE EXECUTE ON FUNCTION relay.is_json_object(bytea), relay.fault_of_backfill(text[], text[], bytea[]),
    relay.store_backfill(text[], text[], bytea[], text) FROM PUBLIC;
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['relay_service', 'console_operator'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = role
                    AND has_table_privilege(oid, 'relay.replay_plans', 'SELECT')) THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION relay.store_backfill(text[], text[], bytea[], text) TO %I', role);
        END IF;
    END LOOP;
END
$$;
