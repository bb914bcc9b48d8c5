-- How far the relays have got with removing headers that need not be kept from deliveries stored before only the
-- needed ones were stored. Rows received until `ends_at` are scrubbed: a relay of the version before may run beside
-- newer ones for a day. The row goes when the work is done.

CREATE TABLE relay.header_scrub (
    done_to bigint PRIMARY KEY,                   -- relay.deliveries.id
    ends_at timestamptz NOT NULL
);
INSERT INTO relay.header_scrub VALUES (0, now() + interval '1 day');

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
        EXECUTE format('GRANT %s ON relay.header_scrub TO %I', may.privilege, may.rolname);
    END LOOP;
END
$$;
