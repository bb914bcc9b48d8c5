-- The spools of the relays' hosts, as their relays last reported them (DESIGN, 1.3), and the name of this database, so
-- that a spool drains into the database that its receipts are for, also after that has moved.

CREATE TABLE relay.identity (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id  uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO relay.identity DEFAULT VALUES;

CREATE TABLE relay.spools (
    id          text PRIMARY KEY,                 -- of the file, whichever host it is on
    host        text NOT NULL,
    path        text NOT NULL,
    receipts    bigint NOT NULL,
    refused     bigint NOT NULL,                  -- of `receipts`, those that this database refuses
    bytes       bigint NOT NULL,
    max_bytes   bigint NOT NULL,
    oldest_at   timestamptz,                      -- when the oldest receipt came
    error       text,                             -- why it takes no receipt
    since       timestamptz,                      -- since when it has not been empty while reports came
    reported_at timestamptz NOT NULL DEFAULT now()
);

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
        EXECUTE format('GRANT %s ON relay.spools TO %I', may.privilege, may.rolname);
        IF may.privilege = 'SELECT' THEN
            EXECUTE format('GRANT SELECT ON relay.identity TO %I', may.rolname);
        END IF;
    END LOOP;
END
$$;
