-- Who has taken note of an alert, why, and until when. A rule has one acknowledgement; the audit keeps all of them.
CREATE TABLE relay.acknowledgements (
    rule     text PRIMARY KEY,
    operator text NOT NULL,
    login    text NOT NULL DEFAULT session_user,
    reason   text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    until    timestamptz NOT NULL
);

-- Acknowledges a rule's alert for so many seconds, in place of an earlier acknowledgement.
CREATE FUNCTION relay.acknowledge(operator text, rule text, reason text, for_s double precision) RETURNS timestamptz
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    ends timestamptz;
BEGIN
    IF coalesce(btrim(reason), '') = '' THEN
        PERFORM relay.refuse('An acknowledgement needs a reason');
    ELSIF (for_s > 0 AND for_s <= 2678400) IS NOT TRUE THEN
        PERFORM relay.refuse('An acknowledgement lasts more than 0 seconds and 31 days at most');
    ELSIF (rule ~ '^[a-z0-9-]{1,60}$') IS NOT TRUE THEN
        PERFORM relay.refuse('This is no name of an alert rule');
    END IF;
    ends := now() + make_interval(secs => for_s);
    INSERT INTO relay.acknowledgements AS a (rule, operator, reason, until)
    VALUES (rule, relay.plain_name(operator), relay.plain_text(reason, 2000), ends)
    ON CONFLICT ON CONSTRAINT acknowledgements_pkey DO UPDATE
       SET operator = excluded.operator, login = excluded.login, reason = excluded.reason, at = now(),
           until = excluded.until;
    INSERT INTO relay.operator_actions (operator, action, reason, details)
    VALUES (coalesce(operator, ''), 'acknowledge', reason, jsonb_build_object('rule', rule, 'for_s', for_s));
    PERFORM pg_notify('relay_alerts', '');
    RETURN ends;
END
$$;

-- Operators acknowledge through the function alone; all read what is acknowledged. Relays learn what gaps are usual.
DO $$
DECLARE
    may record;
BEGIN
    FOR may IN
        SELECT r.rolname, p.privilege
        FROM pg_roles r CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)
        WHERE r.rolname IN ('relay_service', 'console_operator', 'console_reader')
          AND has_table_privilege(r.oid, 'relay.deliveries', p.privilege)
    LOOP
        EXECUTE format('GRANT %s ON relay.usual_gaps TO %I', may.privilege, may.rolname);
        IF may.privilege = 'SELECT' THEN
            EXECUTE format('GRANT SELECT ON relay.acknowledgements TO %I', may.rolname);
        END IF;
    END LOOP;
    FOR may IN
        SELECT r.rolname FROM pg_roles r
         WHERE r.rolname IN ('relay_service', 'console_operator')
           AND has_function_privilege(r.oid, 'relay.ask_discard(bigint[], text, text)', 'EXECUTE')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION relay.acknowledge(text, text, text, double precision) TO %I',
                       may.rolname);
    END LOOP;
END
$$;
