-- Backfill (DESIGN, 1.6): messages that Chatwoot has and no webhook brought become deliveries that wait for a replay.

-- Stores messages as dead letters, so that a replay plan can send them; those whose id is known already stay as they
-- are. Returns the rows of all of them that are dead letters. Leaves no fact: nothing failed here.
CREATE FUNCTION relay.store_backfill(ids text[], conversations text[], bodies bytea[])
    RETURNS TABLE (id bigint, delivery_id text, run integer)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(ids) IS DISTINCT FROM cardinality(bodies)
       OR cardinality(ids) IS DISTINCT FROM cardinality(conversations) THEN
        PERFORM relay.refuse('The backfill is refused: it needs one conversation and one body for each id');
    END IF;
    IF EXISTS (SELECT FROM unnest(ids) AS given(id) WHERE given.id IS NULL
                  OR given.id !~ '^backfill-[0-9]{1,19}-[0-9]{1,19}$') THEN
        PERFORM relay.refuse('The backfill is refused: an id is not backfill-ACCOUNT-MESSAGE');
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
    RETURN QUERY SELECT d.id, d.delivery_id, d.run FROM relay.deliveries d
                  WHERE d.delivery_id = ANY (ids) AND d.state = 'dead' ORDER BY array_position(ids, d.delivery_id);
END
$$;
REVOKE EXECUTE ON FUNCTION relay.store_backfill(text[], text[], bytea[]) FROM PUBLIC;
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['relay_service', 'console_operator'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = role
                    AND has_table_privilege(oid, 'relay.replay_plans', 'SELECT')) THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION relay.store_backfill(text[], text[], bytea[]) TO %I', role);
        END IF;
    END LOOP;
END
$$;
