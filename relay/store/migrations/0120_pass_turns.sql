-- A relay that finishes the head of a conversation may claim the next delivery in the same statement: many webhooks of
-- one conversation then cost one commit each, not two.

-- Ends the turn of each head `positions[n]` of conversation `keys[n]`, as relay.promote does. The next delivery goes to
-- `relay` under the claim `claims[n]`, if that is not NULL, the relay's lease is not over, forwarding is neither held
-- nor stopped, and the delivery is for the relay's Agent SDK and not in a retry wait. Returns the next deliveries; those
-- that `relay` got are `forwarding`. Each statement in here sees what committed before the conversation's row was locked.
-- The conditions leave one index to use: a plan that is made while there are no deliveries is good for ever more of them.
CREATE FUNCTION relay.pass_turns(keys text[], positions bigint[], claims uuid[], relay uuid)
    RETURNS SETOF relay.deliveries LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    turn record;
    next record;
    agent text;
BEGIN
    SELECT i.agent INTO agent FROM relay.instances i, relay.gate g
     WHERE i.id = relay AND i.lease_until > now() AND NOT g.held AND NOT g.open;
    FOR turn IN
        SELECT t.key, t.position, t.claim FROM unnest(keys, positions, claims) AS t(key, position, claim)
         WHERE t.key IS NOT NULL AND t.position IS NOT NULL ORDER BY t.key
    LOOP
        PERFORM FROM relay.conversations c WHERE c.key = turn.key AND c.head = turn.position FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        SELECT d.id, d.position INTO next FROM relay.deliveries d
         WHERE d.conversation_key = turn.key AND d.blocked ORDER BY d.position LIMIT 1;
        UPDATE relay.conversations c SET head = next.position WHERE c.key = turn.key;
        CONTINUE WHEN next.id IS NULL;
        RETURN QUERY
        UPDATE relay.deliveries d
           SET blocked = false, state = 'forwarding', owner = relay, claim = turn.claim, claimed_at = clock_timestamp(),
               waits = NULL, destination = agent, next_attempt_at = NULL,
               waited_ms = d.waited_ms + greatest(0, extract(epoch FROM now() - d.since) * 1000)::bigint
         WHERE d.id = next.id AND turn.claim IS NOT NULL
           AND CASE WHEN d.state = 'received' AND d.plan_id IS NULL THEN coalesce(d.destination, agent) = agent END
        RETURNING d.*;
        CONTINUE WHEN FOUND;
        RETURN QUERY
        UPDATE relay.deliveries d SET blocked = false, waits = relay.other_wait(d.state, false) WHERE d.id = next.id
        RETURNING d.*;
    END LOOP;
END
$$;

DO $$
DECLARE
    may record;
BEGIN
    FOR may IN
        SELECT r.rolname FROM pg_roles r
         WHERE r.rolname = 'relay_service' AND has_table_privilege(r.oid, 'relay.deliveries', 'UPDATE')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION relay.pass_turns(text[], bigint[], uuid[], uuid) TO %I', may.rolname);
    END LOOP;
END
$$;
