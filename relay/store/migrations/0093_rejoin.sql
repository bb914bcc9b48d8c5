-- A destination without a live relay leaves its conversations' order, and comes back to it (DESIGN, 1.2). Neither waits
-- for a row that another session holds.

-- Marks what waits for a destination without a live relay and releases it from its conversation's order. Among
-- themselves these deliveries keep their order: they form a conversation of their own, whose key ends in the
-- destination. Conversations are locked before deliveries. What another session has locked is left for the next round.
-- A position is skipped where deliveries join others: the last position issued says that nothing waits behind it, which
-- is not so for the head then. Returns how many were marked.
CREATE OR REPLACE FUNCTION relay.release_destination(gone text, most integer) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms' AS $$
DECLARE
    suffix text := ' ' || gone;
    wanted text[];
    locked text[];
    marked bigint[];
    keys text[];
    own_keys text[];
    positions bigint[];
BEGIN
    PERFORM relay.give_back_abandoned(gone, most);
    SELECT array_agg(DISTINCT u.conversation_key) INTO wanted
      FROM (SELECT d.conversation_key FROM relay.deliveries d
             WHERE d.state IN ('received', 'waiting') AND coalesce(d.destination, '') = gone
               AND CASE WHEN d.waits = 'destination' THEN 1 ELSE 0 END = 0
             ORDER BY d.received_at LIMIT most) AS u
     WHERE right(u.conversation_key, length(suffix)) <> suffix;
    WITH free AS MATERIALIZED (
        SELECT c.key FROM relay.conversations c
         WHERE c.key IN (SELECT k || s FROM unnest(wanted) AS k, unnest(ARRAY['', suffix]) AS s)
         ORDER BY c.key FOR UPDATE SKIP LOCKED
    )
    SELECT array_agg(w.key) INTO locked FROM unnest(wanted) AS w(key)
     WHERE EXISTS (SELECT FROM free f WHERE f.key = w.key)
       AND (EXISTS (SELECT FROM free f WHERE f.key = w.key || suffix)
            OR NOT EXISTS (SELECT FROM relay.conversations c WHERE c.key = w.key || suffix));
    WITH picked AS MATERIALIZED (
        SELECT d.id, d.conversation_key AS key, d.position, coalesce(d.conversation_key = ANY(locked), false) AS moves
          FROM relay.deliveries d
         WHERE d.state IN ('received', 'waiting') AND coalesce(d.destination, '') = gone
           AND CASE WHEN d.waits = 'destination' THEN 1 ELSE 0 END = 0
           AND (d.conversation_key IS NULL OR right(d.conversation_key, length(suffix)) = suffix
                OR d.conversation_key = ANY(locked))
         ORDER BY d.received_at LIMIT most FOR UPDATE SKIP LOCKED
    ), moved AS (
        UPDATE relay.deliveries d
           SET waits = 'destination', blocked = d.blocked OR p.moves,
               conversation_key = CASE WHEN p.moves THEN p.key || suffix ELSE p.key END
          FROM picked p WHERE d.id = p.id
        RETURNING d.id, p.key, p.position, p.moves
    )
    SELECT array_agg(m.id), array_agg(m.key) FILTER (WHERE m.moves), array_agg(m.position) FILTER (WHERE m.moves)
      INTO marked, keys, positions FROM moved m;
    IF keys IS NOT NULL THEN
        SELECT array_agg(k.key || suffix) INTO own_keys FROM unnest(keys) AS k(key);
        INSERT INTO relay.conversations AS c (key, issued, head)
        SELECT n.key, max(n.position), 0 FROM unnest(own_keys, positions) AS n(key, position)
         GROUP BY n.key ORDER BY n.key
            ON CONFLICT (key) DO UPDATE SET issued = greatest(c.issued, excluded.issued) + 1, touched_at = now(),
                                            head = coalesce(c.head, 0);
        PERFORM relay.try_promote(own_keys, array_fill(0::bigint, ARRAY[cardinality(own_keys)]));
        PERFORM relay.try_promote(keys, positions);
        UPDATE relay.deliveries d SET waits = 'destination' WHERE d.id = ANY(marked) AND d.waits <> 'destination';
    END IF;
    RETURN coalesce(cardinality(marked), 0);
END
$$;

-- The delivery of a conversation that is attempted or may be, if it is the head `head`, or any if that is NULL; NULL if
-- there is none. `conversation` is the conversation's id in the payloads: an index leads from it to the deliveries.
CREATE FUNCTION relay.open_head(line text, conversation text, head bigint) RETURNS relay.deliveries LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT d FROM relay.deliveries d
     WHERE d.conversation_id = conversation AND d.conversation_key = line AND NOT d.blocked
       AND d.state IN ('received', 'forwarding', 'waiting') AND d.position = coalesce(head, d.position)
     ORDER BY d.id DESC LIMIT 1
$$;

-- Moves the deliveries of the conversation `own`, which a destination without a relay had, back to the conversation
-- `line` that they came from, to their places in the order of arrival. Attempts in progress continue. Returns how
-- many were moved; 0 if another session holds a row, or finishes or claims one now.
CREATE FUNCTION relay.rejoin(own text, line text, conversation text) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own_head relay.deliveries;
    line_head relay.deliveries;
    first relay.deliveries;
    moved integer;
BEGIN
    INSERT INTO relay.conversations (key, issued)  -- it may have been removed, as one that was idle
    SELECT line, 0 FROM relay.conversations c WHERE c.key = own ON CONFLICT DO NOTHING;
    IF (SELECT count(*) FROM (SELECT FROM relay.conversations c WHERE c.key IN (own, line)
                               ORDER BY c.key FOR UPDATE SKIP LOCKED) AS locked) < 2 THEN
        RETURN 0;
    END IF;
    own_head := relay.open_head(own, conversation, NULL);
    SELECT h.* INTO line_head
      FROM relay.conversations c CROSS JOIN LATERAL relay.open_head(line, conversation, c.head) AS h
     WHERE c.key = line AND c.head IS NOT NULL AND h.id IS NOT NULL;
    IF (SELECT count(*) FROM (SELECT FROM relay.deliveries d
                               WHERE d.id = own_head.id AND d.state = own_head.state
                                  OR d.id = line_head.id AND d.state = line_head.state
                               FOR UPDATE SKIP LOCKED) AS locked)
       < (own_head.id IS NOT NULL)::integer + (line_head.id IS NOT NULL)::integer THEN
        RETURN 0;
    END IF;
    WITH moving AS (
        UPDATE relay.deliveries d
           SET conversation_key = line, blocked = d.state <> 'forwarding',
               waits = CASE WHEN d.state <> 'forwarding' THEN 'order' END
         WHERE d.conversation_key = own AND d.blocked OR d.id = own_head.id
        RETURNING d.position
    ), kept AS (
        UPDATE relay.conversations c SET issued = greatest(c.issued, (SELECT max(m.position) FROM moving m)) + 1
         WHERE c.key = line
    )
    SELECT count(*) INTO moved FROM moving;
    UPDATE relay.conversations c SET head = NULL WHERE c.key = own;
    IF line_head.state = 'forwarding' THEN
        RETURN moved;
    END IF;
    UPDATE relay.deliveries d SET blocked = true, waits = 'order' WHERE d.id = line_head.id;
    IF own_head.state = 'forwarding' THEN
        UPDATE relay.conversations c SET head = own_head.position WHERE c.key = line;
    ELSE
        UPDATE relay.conversations c SET head = 0 WHERE c.key = line;
        PERFORM relay.promote(ARRAY[line], ARRAY[0::bigint]);
    END IF;
    RETURN moved;
END
$$;

-- Takes the mark from what waits for a destination that has a live relay again, and puts it back into its
-- conversation's order. Returns how many had it.
CREATE OR REPLACE FUNCTION relay.restore_destination(back text, most integer) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms' AS $$
DECLARE
    suffix text := ' ' || back;
    own record;
    moved integer := 0;
    number integer;
BEGIN
    FOR own IN
        SELECT DISTINCT u.conversation_key AS key, u.conversation_id
          FROM (SELECT d.conversation_key, d.conversation_id FROM relay.deliveries d
                 WHERE d.state IN ('received', 'waiting') AND coalesce(d.destination, '') = back
                   AND CASE WHEN d.waits = 'destination' THEN 1 ELSE 0 END = 1
                 ORDER BY d.received_at LIMIT most) AS u
         WHERE right(u.conversation_key, length(suffix)) = suffix ORDER BY 1
    LOOP
        BEGIN
            moved := moved + relay.rejoin(own.key, left(own.key, -length(suffix)), own.conversation_id);
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    UPDATE relay.deliveries d SET waits = relay.other_wait(d.state, d.blocked)
     WHERE d.id IN (
           SELECT o.id FROM relay.deliveries o
            WHERE o.state IN ('received', 'waiting') AND coalesce(o.destination, '') = back
              AND CASE WHEN o.waits = 'destination' THEN 1 ELSE 0 END = 1
              AND right(coalesce(o.conversation_key, ''), length(suffix)) <> suffix
            ORDER BY o.received_at LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS number = ROW_COUNT;
    RETURN moved + number;
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
        EXECUTE format('GRANT EXECUTE ON FUNCTION relay.open_head(text, text, bigint), '
                       'relay.rejoin(text, text, text) TO %I', may.rolname);
    END LOOP;
END
$$;
