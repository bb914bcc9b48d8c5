-- What operators give a redirect or a release is bounded. Relays divide by the rate of a release: one that is nearly 0, or
-- nearly infinite, would stop every relay's backlog. A destination is an address and not an unlimited text in the audit.

CREATE OR REPLACE FUNCTION relay.release(operator text, rate double precision) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    hold bigint;
BEGIN
    IF NOT (rate >= 0.001 AND rate <= 1000000) THEN
        PERFORM relay.refuse('The rate must be from 0.001 to 1,000,000 a second');
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
UPDATE relay.holds SET rate = least(greatest(rate, 0.001), 1000000)
 WHERE drained_at IS NULL AND NOT (rate >= 0.001 AND rate <= 1000000);

CREATE OR REPLACE FUNCTION relay.ask_redirect(operator text, reason text, origin text, target text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    action bigint;
BEGIN
    IF coalesce(origin, '') = '' OR coalesce(target, '') = '' OR origin = target THEN
        PERFORM relay.refuse('A redirect needs two different destinations');
    ELSIF length(origin) > 2000 OR relay.plain_text(target, 2000) <> target THEN
        PERFORM relay.refuse('A destination is an address of 2,000 characters at most');
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
