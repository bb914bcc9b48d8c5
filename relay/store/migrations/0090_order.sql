-- Order within a conversation (DESIGN, 1.2): what releases it, and what relays do every second, wait for no row that
-- another session holds. What cannot be locked is left for the next time.

-- A delivery that waits for its next attempt may be blocked: its wait stays one for a retry.
CREATE OR REPLACE FUNCTION relay.promote(keys text[], positions bigint[]) RETURNS integer LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    turn record;
    next record;
    promoted integer := 0;
BEGIN
    FOR turn IN
        SELECT t.key, t.position FROM unnest(keys, positions) AS t(key, position)
         WHERE t.key IS NOT NULL AND t.position IS NOT NULL ORDER BY t.key
    LOOP
        PERFORM FROM relay.conversations c WHERE c.key = turn.key AND c.head = turn.position FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        SELECT d.id, d.position INTO next FROM relay.deliveries d
         WHERE d.conversation_key = turn.key AND d.blocked ORDER BY d.position LIMIT 1;
        UPDATE relay.conversations c SET head = next.position WHERE c.key = turn.key;
        IF next.id IS NOT NULL THEN
            UPDATE relay.deliveries d SET blocked = false, waits = relay.other_wait(d.state, false) WHERE d.id = next.id;
            promoted := promoted + 1;
        END IF;
    END LOOP;
    RETURN promoted;
END
$$;

-- As relay.promote, but a conversation whose rows another session holds keeps its head: relay.heal_order finds it.
CREATE FUNCTION relay.try_promote(keys text[], positions bigint[]) RETURNS integer LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    turn record;
    promoted integer := 0;
BEGIN
    FOR turn IN
        SELECT t.key, t.position FROM unnest(keys, positions) AS t(key, position)
         WHERE t.key IS NOT NULL AND t.position IS NOT NULL ORDER BY t.key
    LOOP
        BEGIN
            promoted := promoted + relay.promote(ARRAY[turn.key], ARRAY[turn.position]);
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN promoted;
END
$$;

-- A head whose retry wait has lasted for `after` delays its conversation no longer. The wait ends when the next attempt
-- is due: what a delivery waits after that, for a hold or a slot, does not count.
CREATE OR REPLACE FUNCTION relay.release_order(after interval) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms' AS $$
DECLARE
    keys text[];
    positions bigint[];
BEGIN
    WITH late AS MATERIALIZED (
        SELECT d.id, c.key, d.position
          FROM relay.deliveries d JOIN relay.conversations c ON c.key = d.conversation_key
         WHERE d.state = 'waiting' AND d.waits = 'retry' AND d.conversation_key IS NOT NULL
           AND d.next_attempt_at - d.since > after AND d.since < now() - after
         ORDER BY c.key LIMIT 500 FOR UPDATE OF d, c SKIP LOCKED
    ), released AS (
        UPDATE relay.deliveries d SET conversation_key = NULL FROM late l WHERE d.id = l.id
    )
    SELECT array_agg(l.key), array_agg(l.position) INTO keys, positions FROM late l;
    RETURN coalesce(relay.try_promote(keys, positions), 0);
END
$$;

ALTER FUNCTION relay.end_holds() SET lock_timeout = '10ms';
ALTER FUNCTION relay.end_drain() SET lock_timeout = '10ms';

-- True if nothing of a conversation is attempted or may be. Says false where the conversation has so many deliveries
-- that the newest 5,000 do not hold the head.
CREATE FUNCTION relay.lacks_head(line text, conversation text) RETURNS boolean LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT NOT EXISTS (
        SELECT FROM relay.conversations c
         WHERE c.key = line AND c.head IS NOT NULL AND (
               SELECT bool_or(n.is_head) OR count(*) = 5000
                 FROM (SELECT d.conversation_key = c.key AND d.position = c.head AND NOT d.blocked
                              AND d.state IN ('received', 'forwarding', 'waiting') AS is_head
                         FROM relay.deliveries d WHERE d.conversation_id = conversation
                        ORDER BY d.id DESC LIMIT 5000) AS n))
$$;

-- Promotes the next delivery of each conversation in which deliveries wait for a head that is over or gone. Checks
-- up to `most` conversations whose keys come after `after`. Returns the last one's key, NULL after the last of all.
CREATE FUNCTION relay.heal_order(after text, most integer) RETURNS text LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms' AS $$
DECLARE
    blocked record;
    last text := after;
    head bigint;
BEGIN
    FOR number IN 1 .. most LOOP
        SELECT d.conversation_key AS key, d.conversation_id, d.position INTO blocked FROM relay.deliveries d
         WHERE d.blocked AND d.conversation_key > last ORDER BY d.conversation_key, d.position LIMIT 1;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        last := blocked.key;
        CONTINUE WHEN NOT relay.lacks_head(last, blocked.conversation_id);
        BEGIN
            INSERT INTO relay.conversations (key, issued)
            SELECT last, max(d.position) FROM relay.deliveries d WHERE d.blocked AND d.conversation_key = last
                ON CONFLICT DO NOTHING;
            PERFORM FROM relay.conversations c WHERE c.key = last FOR UPDATE;
            IF relay.lacks_head(last, blocked.conversation_id) THEN
                UPDATE relay.conversations c SET head = coalesce(c.head, 0) WHERE c.key = last RETURNING c.head INTO head;
                PERFORM relay.promote(ARRAY[last], ARRAY[head]);
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN last;
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
        EXECUTE format('GRANT EXECUTE ON FUNCTION relay.try_promote(text[], bigint[]), '
                       'relay.lacks_head(text, text), relay.heal_order(text, integer) TO %I', may.rolname);
    END LOOP;
END
$$;
