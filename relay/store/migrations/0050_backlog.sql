-- The backlog (DESIGN, 1.1 to 1.5): what waits stays in Postgres, in order within a conversation, with the reason;
-- operators hold forwarding, and a circuit breaker stops it for all relays.

ALTER TABLE relay.deliveries
    DROP CONSTRAINT deliveries_state_check,
    ADD CONSTRAINT deliveries_state_check
        CHECK (state IN ('received', 'forwarding', 'waiting', 'delivered', 'dead', 'discarded', 'ignored')) NOT VALID,
    ADD COLUMN conversation_key text,             -- account and conversation, while the delivery takes part in order
    ADD COLUMN position        bigint,            -- in its conversation, in the order of arrival
    ADD COLUMN blocked         boolean NOT NULL DEFAULT false,  -- an earlier delivery of its conversation is not over
    ADD COLUMN waits           text,              -- why it is received or waiting: order, capacity, hold, breaker, retry
    ADD COLUMN since           timestamptz NOT NULL DEFAULT now(),  -- when it became received or waiting
    ADD COLUMN next_attempt_at timestamptz,       -- waiting: when the next attempt is due
    ADD COLUMN tries           integer NOT NULL DEFAULT 0,  -- attempts of the current run that are recorded
    ADD COLUMN spent_ms        bigint NOT NULL DEFAULT 0,   -- length of the current run before its last wait
    ADD COLUMN waited_ms       bigint NOT NULL DEFAULT 0,   -- time spent received or waiting, all waits together
    ADD COLUMN repeats         boolean NOT NULL DEFAULT false;  -- its sender sent it again within 60 s of its death

COMMENT ON FUNCTION relay.facts_of_redelivery(jsonb, bigint, integer, timestamptz)
    IS 'For relays of earlier versions; relay.deliveries.repeats has taken its place';

-- One row a conversation. `issued` is the last position given out; `head` the position that is being forwarded or may
-- be, NULL while nothing of the conversation is unfinished.
CREATE TABLE relay.conversations (
    key        text PRIMARY KEY,
    issued     bigint NOT NULL,
    head       bigint,
    touched_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 60);
CREATE INDEX conversations_idle ON relay.conversations USING brin (touched_at);

-- Holds, past and present. The current one has no `released_at` and an `until` that is NULL or has not come.
CREATE TABLE relay.holds (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    since       timestamptz NOT NULL DEFAULT now(),
    until       timestamptz,
    operator    text NOT NULL,
    login       text NOT NULL DEFAULT session_user,
    reason      text NOT NULL,
    released_at timestamptz,
    released_by text,
    rate        double precision,                 -- deliveries a second that the release allows; NULL: no limit
    drained_at  timestamptz                       -- when the backlog was empty, and the rate's limit ended
);
CREATE INDEX holds_current ON relay.holds (id) WHERE released_at IS NULL;

-- The circuit breaker: one row. `opened_at` is NULL while it is closed.
CREATE TABLE relay.breaker (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    opened_at   timestamptz,
    why         text,
    probe_at    timestamptz,                      -- when the next probe is due
    pause_s     double precision NOT NULL DEFAULT 5,  -- the pause before it
    probed_key  text,                             -- the conversation of the last probe
    closed_at   timestamptz                       -- when it last closed: the backlog drains slowly at first
);
INSERT INTO relay.breaker DEFAULT VALUES;

-- The attempts of the last minute of each relay, while the breaker is on.
CREATE TABLE relay.attempt_counts (
    instance uuid PRIMARY KEY,
    attempts integer NOT NULL,
    failed   integer NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- RELAY_AGENT_CONCURRENCY: so many slots over all relays. A slot is free when it has no owner or the owner's lease is over.
CREATE TABLE relay.agent_slots (
    number integer PRIMARY KEY,
    owner  uuid
);

-- Whether forwarding is held or the breaker open, for the statements that store, claim and finish.
CREATE VIEW relay.gate AS
SELECT EXISTS (SELECT FROM relay.holds h WHERE h.released_at IS NULL AND (h.until IS NULL OR h.until > now())) AS held,
       coalesce((SELECT b.opened_at IS NOT NULL FROM relay.breaker b), false) AS open;

-- Ends the turn of each head `positions[n]` of conversation `keys[n]` and lets the next delivery go. Returns how many
-- became claimable. Each statement in here sees what committed before the conversation's row was locked.
CREATE FUNCTION relay.promote(keys text[], positions bigint[]) RETURNS integer LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    turn record;
    next record;
    promoted integer := 0;
BEGIN
    FOR turn IN SELECT t.key, t.position FROM unnest(keys, positions) AS t(key, position) ORDER BY t.key LOOP
        PERFORM FROM relay.conversations c WHERE c.key = turn.key AND c.head = turn.position FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        SELECT d.id, d.position INTO next FROM relay.deliveries d
         WHERE d.conversation_key = turn.key AND d.blocked ORDER BY d.position LIMIT 1;
        UPDATE relay.conversations c SET head = next.position WHERE c.key = turn.key;
        IF next.id IS NOT NULL THEN
            UPDATE relay.deliveries d SET blocked = false, waits = 'capacity' WHERE d.id = next.id;
            promoted := promoted + 1;
        END IF;
    END LOOP;
    RETURN promoted;
END
$$;

-- A head that has been in a retry wait for more than a minute delays its conversation no longer.
CREATE FUNCTION relay.release_order(after interval) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    keys text[];
    positions bigint[];
BEGIN
    WITH late AS (
        SELECT d.id, d.conversation_key, d.position FROM relay.deliveries d
         WHERE d.state = 'waiting' AND d.waits = 'retry' AND d.conversation_key IS NOT NULL AND d.since < now() - after
         ORDER BY d.conversation_key LIMIT 500 FOR UPDATE SKIP LOCKED
    ), released AS (
        UPDATE relay.deliveries d SET conversation_key = NULL FROM late l WHERE d.id = l.id
    )
    SELECT array_agg(l.conversation_key), array_agg(l.position) INTO keys, positions FROM late l;
    RETURN coalesce(relay.promote(keys, positions), 0);
END
$$;

-- Raised when a webhook that got a position in its conversation is there already: another relay stored it meanwhile.
CREATE FUNCTION relay.undo_store() RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'a delivery of this batch was stored meanwhile' USING ERRCODE = 'RL003';
END
$$;

-- How many deliveries wait, by kind, kept by the triggers of relay.deliveries so that it costs the same at a million.
-- `writer` gives every session rows of its own; a kind's number is the sum over its writers.
CREATE TABLE relay.backlog_counts (
    kind   text NOT NULL,                         -- ready, order, retry, hold, breaker
    writer integer NOT NULL,
    number bigint NOT NULL,
    CONSTRAINT backlog_counts_key PRIMARY KEY (kind, writer)
) WITH (fillfactor = 50);

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
            SELECT CASE WHEN blocked THEN 'order' WHEN state = 'received' THEN 'ready' ELSE coalesce(waits, 'retry') END,
                   pg_backend_pid(), sign * count(*)
              FROM changed WHERE state IN ('received', 'waiting') GROUP BY 1
            ON CONFLICT ON CONSTRAINT backlog_counts_key DO UPDATE SET number = c.number + excluded.number;
        END IF;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION relay.forget_dead() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' AND TG_RELID = to_regclass('relay.deliveries') THEN
        DELETE FROM relay.dead_causes;
        DELETE FROM relay.backlog_counts;
    END IF;
    RETURN NULL;
END
$$;
INSERT INTO relay.backlog_counts SELECT 'ready', 0, count(*) FROM relay.deliveries WHERE state = 'received';

-- Holds forwarding. A hold that is in force is replaced. Returns the hold's id.
CREATE FUNCTION relay.hold(operator text, reason text, for_s double precision) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    hold bigint;
BEGIN
    IF coalesce(btrim(reason), '') = '' THEN
        PERFORM relay.refuse('A hold needs a reason');
    ELSIF NOT (for_s > 0 AND for_s <= 31536000) THEN
        PERFORM relay.refuse('A hold lasts more than 0 seconds and a year at most');
    END IF;
    LOCK TABLE relay.holds IN SHARE ROW EXCLUSIVE MODE;
    UPDATE relay.holds h SET released_at = now(), released_by = relay.plain_name(operator) WHERE h.released_at IS NULL;
    INSERT INTO relay.holds (operator, reason, until)
    VALUES (relay.plain_name(operator), relay.plain_text(reason, 2000), now() + make_interval(secs => for_s))
    RETURNING relay.holds.id INTO hold;
    INSERT INTO relay.operator_actions (operator, action, reason, details)
    VALUES (coalesce(operator, ''), 'hold', reason, jsonb_strip_nulls(jsonb_build_object('hold', hold, 'for_s', for_s)));
    PERFORM pg_notify('relay_hold', hold::text);
    RETURN hold;
END
$$;

-- Releases the hold; while the backlog drains at a rate, changes that rate. Returns the hold's id, NULL if there is none.
CREATE FUNCTION relay.release(operator text, rate double precision) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    hold bigint;
BEGIN
    IF NOT (rate > 0 AND rate < 'Infinity') THEN
        PERFORM relay.refuse('The rate must be a positive, finite number');
    END IF;
    LOCK TABLE relay.holds IN SHARE ROW EXCLUSIVE MODE;
    UPDATE relay.holds h SET released_at = now(), released_by = relay.plain_name(release.operator), rate = release.rate
     WHERE h.released_at IS NULL AND (h.until IS NULL OR h.until > now()) RETURNING h.id INTO hold;
    IF hold IS NULL THEN
        UPDATE relay.holds h SET rate = release.rate
         WHERE h.id = (SELECT max(n.id) FROM relay.holds n) AND h.rate IS NOT NULL AND h.drained_at IS NULL
         RETURNING h.id INTO hold;
    END IF;
    IF hold IS NOT NULL THEN
        INSERT INTO relay.operator_actions (operator, action, details)
        VALUES (coalesce(operator, ''), 'release', jsonb_strip_nulls(jsonb_build_object('hold', hold, 'rate', rate)));
        PERFORM pg_notify('relay_hold', hold::text);
    END IF;
    RETURN hold;
END
$$;

-- Records the end of a hold whose time is over. Relays call it. Returns how many ended.
CREATE FUNCTION relay.end_holds() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended integer;
BEGIN
    WITH over AS (
        UPDATE relay.holds h SET released_at = h.until, released_by = 'relay'
         WHERE h.released_at IS NULL AND h.until <= now() RETURNING h.id
    ), recorded AS (
        INSERT INTO relay.operator_actions (operator, action, reason, details)
        SELECT 'relay', 'release', 'the time of the hold is over', jsonb_build_object('hold', o.id) FROM over o
    )
    SELECT count(*) INTO ended FROM over;
    RETURN ended;
END
$$;

-- Ends the limit of a release's rate once nothing that waited then is left and nothing else could be claimed. Relays
-- call it.
CREATE FUNCTION relay.end_drain() RETURNS boolean LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    WITH ended AS (
        UPDATE relay.holds h SET drained_at = now()
         WHERE h.id = (SELECT max(n.id) FROM relay.holds n) AND h.rate IS NOT NULL AND h.drained_at IS NULL
           AND NOT EXISTS (SELECT FROM relay.deliveries d
                            WHERE d.state IN ('received', 'waiting') AND d.received_at <= h.released_at
                              AND d.waits IS DISTINCT FROM 'retry')
           AND NOT EXISTS (SELECT FROM relay.deliveries d
                            WHERE d.state = 'received' AND NOT d.blocked AND d.plan_id IS NULL)
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM ended)
$$;

-- Operators hold and release through the functions alone; relays work on the rest.
DO $$
DECLARE
    may record;
    given text;
BEGIN
    FOR may IN
        SELECT r.rolname, p.privilege
        FROM pg_roles r CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)
        WHERE r.rolname IN ('relay_service', 'console_operator', 'console_reader')
          AND has_table_privilege(r.oid, 'relay.deliveries', p.privilege)
    LOOP
        given := 'relay.conversations, relay.breaker, relay.attempt_counts, relay.agent_slots, relay.backlog_counts';
        IF may.privilege = 'SELECT' THEN
            given := given || ', relay.gate, relay.holds';
        END IF;
        EXECUTE format('GRANT %s ON %s TO %I', may.privilege, given, may.rolname);
        IF may.privilege = 'INSERT' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION relay.promote(text[], bigint[]), relay.release_order(interval), '
                           'relay.undo_store(), relay.end_holds(), relay.end_drain() TO %I', may.rolname);
        END IF;
    END LOOP;
    FOR may IN
        SELECT r.rolname FROM pg_roles r
         WHERE r.rolname IN ('relay_service', 'console_operator')
           AND has_function_privilege(r.oid, 'relay.ask_discard(bigint[], text, text)', 'EXECUTE')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION relay.hold(text, text, double precision), '
                       'relay.release(text, double precision) TO %I', may.rolname);
    END LOOP;
END
$$;
