-- Each delivery belongs to the Agent SDK that it was accepted for (DESIGN, 6): its relay's `agent`. NULL, of rows from
-- before, is whichever relay takes it. A destination without a live relay delays no other (DESIGN, 1.2).

ALTER TABLE relay.deliveries ADD COLUMN destination text;

CREATE OR REPLACE FUNCTION relay.count_dead() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sign integer := CASE TG_ARGV[0] WHEN '1' THEN 1 WHEN '-1' THEN -1 END;
BEGIN
    IF sign IS NOT NULL AND TG_RELID = to_regclass('relay.deliveries') THEN
        IF EXISTS (SELECT FROM changed WHERE state = 'dead') THEN
            INSERT INTO relay.dead_causes AS c
            SELECT coalesce(final_status, ''), coalesce(last_error, ''), coalesce(event, ''), pg_backend_pid(),
                   sign * count(*)
              FROM changed WHERE state = 'dead' GROUP BY 1, 2, 3
            ON CONFLICT ON CONSTRAINT dead_causes_key DO UPDATE SET letters = c.letters + excluded.letters;
        END IF;
        IF EXISTS (SELECT FROM changed WHERE state IN ('received', 'waiting')) THEN
            INSERT INTO relay.backlog_counts AS c
            SELECT CASE WHEN waits = 'destination' THEN 'destination' WHEN blocked THEN 'order'
                        WHEN state = 'received' THEN 'ready' ELSE coalesce(waits, 'retry') END,
                   pg_backend_pid(), sign * count(*)
              FROM changed WHERE state IN ('received', 'waiting') GROUP BY 1
            ON CONFLICT ON CONSTRAINT backlog_counts_key DO UPDATE SET number = c.number + excluded.number;
        END IF;
    END IF;
    RETURN NULL;
END
$$;

-- A destination that no relay forwards to does not keep the limit of a release's rate in force.
CREATE OR REPLACE FUNCTION relay.end_drain() RETURNS boolean LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    WITH ended AS (
        UPDATE relay.holds h SET drained_at = now()
         WHERE h.id = (SELECT max(n.id) FROM relay.holds n) AND h.rate IS NOT NULL AND h.drained_at IS NULL
           AND NOT EXISTS (SELECT FROM relay.deliveries d
                            WHERE d.state IN ('received', 'waiting') AND d.received_at <= h.released_at
                              AND coalesce(d.waits, '') NOT IN ('retry', 'destination'))
           AND NOT EXISTS (SELECT FROM relay.deliveries d
                            WHERE d.state = 'received' AND NOT d.blocked AND d.plan_id IS NULL
                              AND d.waits IS DISTINCT FROM 'destination')
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM ended)
$$;

-- The reason for which a delivery waits once that is no longer its destination.
CREATE FUNCTION relay.other_wait(state text, blocked boolean) RETURNS text LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN blocked THEN 'order' WHEN state = 'waiting' THEN 'retry' ELSE 'capacity' END
$$;

-- Gives back what dead relays held of a destination.
CREATE FUNCTION relay.give_back_abandoned(gone text, most integer) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number integer;
BEGIN
    UPDATE relay.deliveries d
       SET state = 'received', owner = NULL, waits = 'capacity', since = now(), run = d.run + (d.tries = 0)::integer
     WHERE d.id IN (
           SELECT o.id FROM relay.deliveries o
            WHERE o.state = 'forwarding' AND o.destination = gone
              AND coalesce((SELECT i.lease_until FROM relay.instances i WHERE i.id = o.owner), '-infinity') <= now()
            ORDER BY o.id LIMIT most FOR UPDATE OF o SKIP LOCKED);
    GET DIAGNOSTICS number = ROW_COUNT;
    RETURN number;
END
$$;

-- Marks what waits for a destination without a live relay and releases it from its conversation's order. Among
-- themselves these deliveries keep their order: they form a conversation of their own, whose key ends in the
-- destination. Conversations are locked before deliveries, in the order of their keys; a delivery that another session
-- has locked is left for the next round. Returns how many were marked.
CREATE FUNCTION relay.release_destination(gone text, most integer) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    suffix text := ' ' || gone;
    locked text[];
    marked bigint[];
    keys text[];
    own_keys text[];
    positions bigint[];
BEGIN
    PERFORM relay.give_back_abandoned(gone, most);
    SELECT array_agg(DISTINCT u.conversation_key) INTO locked
      FROM (SELECT d.conversation_key FROM relay.deliveries d
             WHERE d.state IN ('received', 'waiting') AND coalesce(d.destination, '') = gone
               AND CASE WHEN d.waits = 'destination' THEN 1 ELSE 0 END = 0
             ORDER BY d.received_at LIMIT most) AS u
     WHERE right(u.conversation_key, length(suffix)) <> suffix;
    PERFORM FROM relay.conversations c
      WHERE c.key IN (SELECT k || s FROM unnest(locked) AS k, unnest(ARRAY['', suffix]) AS s)
      ORDER BY c.key FOR UPDATE;
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
            ON CONFLICT (key) DO UPDATE SET issued = greatest(c.issued, excluded.issued), touched_at = now(),
                                            head = coalesce(c.head, 0);
        PERFORM relay.promote(own_keys, array_fill(0::bigint, ARRAY[cardinality(own_keys)]));
        PERFORM relay.promote(keys, positions);
        UPDATE relay.deliveries d SET waits = 'destination' WHERE d.id = ANY(marked) AND d.waits <> 'destination';
    END IF;
    RETURN coalesce(cardinality(marked), 0);
END
$$;

-- Takes the mark from what waits for a destination that has a live relay again. Returns how many had it.
CREATE FUNCTION relay.restore_destination(back text, most integer) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number integer;
BEGIN
    UPDATE relay.deliveries d SET waits = relay.other_wait(d.state, d.blocked)
     WHERE d.id IN (
           SELECT o.id FROM relay.deliveries o
            WHERE o.state IN ('received', 'waiting') AND coalesce(o.destination, '') = back
              AND CASE WHEN o.waits = 'destination' THEN 1 ELSE 0 END = 1
            ORDER BY o.received_at LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS number = ROW_COUNT;
    RETURN number;
END
$$;

-- Records that an operator moves what waits for one destination to another. Returns the action, for relay.redirect.
CREATE FUNCTION relay.ask_redirect(operator text, reason text, origin text, target text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    action bigint;
BEGIN
    IF coalesce(origin, '') = '' OR coalesce(target, '') = '' OR origin = target THEN
        PERFORM relay.refuse('A redirect needs two different destinations');
    END IF;
    INSERT INTO relay.operator_actions (operator, action, reason, details)
    VALUES (coalesce(operator, ''), 'redirect', coalesce(reason, ''), jsonb_build_object('from', origin, 'to', target, 'deliveries', (
            SELECT count(*) FROM relay.deliveries d
             WHERE d.state IN ('received', 'waiting') AND coalesce(d.destination, '') = origin)))
    RETURNING relay.operator_actions.id INTO action;
    RETURN action;
END
$$;

-- Moves the next deliveries of a redirect that was recorded. Returns how many.
CREATE FUNCTION relay.redirect(action bigint, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    origin text;
    target text;
    number integer;
BEGIN
    SELECT a.details ->> 'from', a.details ->> 'to' INTO origin, target FROM relay.operator_actions a
     WHERE a.id = redirect.action AND a.action = 'redirect' AND a.at > now() - interval '1 day';
    PERFORM relay.give_back_abandoned(origin, most);
    UPDATE relay.deliveries d
       SET destination = target,
           waits = CASE WHEN d.waits = 'destination' THEN relay.other_wait(d.state, d.blocked) ELSE d.waits END
     WHERE d.id IN (
           SELECT o.id FROM relay.deliveries o
            WHERE o.state IN ('received', 'waiting') AND coalesce(o.destination, '') = origin
            ORDER BY o.received_at LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS number = ROW_COUNT;
    RETURN number;
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
        EXECUTE format('GRANT EXECUTE ON FUNCTION relay.release_destination(text, integer), '
                       'relay.restore_destination(text, integer), relay.give_back_abandoned(text, integer), '
                       'relay.other_wait(text, boolean) TO %I', may.rolname);
    END LOOP;
    FOR may IN
        SELECT r.rolname FROM pg_roles r
         WHERE r.rolname IN ('relay_service', 'console_operator')
           AND has_function_privilege(r.oid, 'relay.ask_discard(bigint[], text, text)', 'EXECUTE')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION relay.ask_redirect(text, text, text, text), '
                       'relay.redirect(bigint, integer) TO %I', may.rolname);
    END LOOP;
END
$$;
