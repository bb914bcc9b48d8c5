-- Signatures of stored webhooks, kept while they are valid, so that a captured request cannot be sent again under
-- another delivery id; and the bytes of bodies that came compressed.

-- A signature covers its timestamp, so that the same one always expires at the same time: one index, which grows at
-- its end, keeps signatures apart and finds those that have expired.
CREATE TABLE relay.signatures (
    signature   uuid NOT NULL,                    -- the first half of the HMAC that was verified
    delivery_id text NOT NULL,                    -- of the delivery that was stored with it
    expires_at  timestamptz NOT NULL,             -- from then on the relay refuses the signature's timestamp
    CONSTRAINT signatures_pkey PRIMARY KEY (expires_at, signature)
);

ALTER TABLE relay.deliveries ADD COLUMN encoded_body bytea;   -- as it came, if with a Content-Encoding; NULL: as `body`

-- A role that stores deliveries stores their signatures; one that reads deliveries may read them.
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
        EXECUTE format('GRANT %s ON relay.signatures TO %I', may.privilege, may.rolname);
    END LOOP;
END
$$;
