-- A redirect that was recorded is good for what waited at its time, until that is moved: relay.redirect took the id of an
-- action again for a day, so that an operator could move later deliveries without a trace in the audit.
CREATE TABLE relay.redirects (
    action bigint PRIMARY KEY,
    origin text NOT NULL,
    target text NOT NULL,
    newest bigint NOT NULL,                       -- the newest delivery at that time
    at     timestamptz NOT NULL DEFAULT now()
);

CREATE OR REPLACE FUNCTION relay.ask_redirect(operator text, reason text, origin text, target text) RETURNS bigint
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
    DELETE FROM relay.redirects r WHERE r.at < now() - interval '1 hour';
    INSERT INTO relay.redirects (action, origin, target, newest)
    SELECT action, origin, target, coalesce(max(d.id), 0) FROM relay.deliveries d;
    RETURN action;
END
$$;

-- Moves the next deliveries of a redirect that was recorded within the last hour. Returns how many; 0 ends the redirect.
CREATE OR REPLACE FUNCTION relay.redirect(action bigint, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asked record;
    number integer;
BEGIN
    IF (most > 0) IS NOT TRUE THEN
        PERFORM relay.refuse('A redirect moves at least one delivery at a time');
    END IF;
    SELECT r.* INTO asked FROM relay.redirects r
     WHERE r.action = redirect.action AND r.at > now() - interval '1 hour' FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM relay.refuse('There is no such redirect, or it has ended');
    END IF;
    PERFORM relay.give_back_abandoned(asked.origin, most);
    UPDATE relay.deliveries d
       SET destination = asked.target,
           waits = CASE WHEN d.waits = 'destination' THEN relay.other_wait(d.state, d.blocked) ELSE d.waits END
     WHERE d.id IN (
           SELECT o.id FROM relay.deliveries o
            WHERE o.state IN ('received', 'waiting') AND coalesce(o.destination, '') = asked.origin
              AND o.id <= asked.newest
            ORDER BY o.received_at LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS number = ROW_COUNT;
    IF number = 0 THEN
        DELETE FROM relay.redirects r WHERE r.action = redirect.action;
    END IF;
    RETURN number;
END
$$;
