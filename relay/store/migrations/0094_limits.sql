-- Limits that relays share (DESIGN, 1.1 and 1.4). Slots and rates of an Agent SDK belong to its destination: relays that
-- forward elsewhere have no share in them. The rate of a release and that of a breaker that closed hold for all.

-- RELAY_AGENT_CONCURRENCY. A slot is free when it has no owner or the owner's lease is over.
CREATE TABLE relay.destination_slots (
    destination text NOT NULL,
    number      integer NOT NULL,
    owner       uuid,
    CONSTRAINT destination_slots_key PRIMARY KEY (destination, number)
) WITH (fillfactor = 50);
COMMENT ON TABLE relay.agent_slots IS 'For relays of earlier versions; relay.destination_slots has taken its place';

-- One row a rate. `next_at` is when the next delivery may start; each start moves it on by 1 / rate.
CREATE TABLE relay.rates (
    scope   text PRIMARY KEY,                     -- a destination, or '' for all
    rate    double precision NOT NULL,            -- deliveries a second, as last used
    next_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

DO $$
DECLARE
    may record;
BEGIN
    FOR may IN
        SELECT r.rolname, p.privilege
        FROM pg_roles r CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)
        WHERE r.rolname IN ('relay_service', 'console_operator', 'console_reader')
          AND has_table_privilege(r.oid, 'relay.agent_slots', p.privilege)
    LOOP
        EXECUTE format('GRANT %s ON relay.destination_slots, relay.rates TO %I', may.privilege, may.rolname);
    END LOOP;
END
$$;
