-- A webhook that is stored and not forwarded: the agent's own note coming back, or an event that nobody asked for.
-- What is there already is in one of the old states, so it need not be looked through.

ALTER TABLE relay.deliveries
    DROP CONSTRAINT deliveries_state_check,
    ADD CONSTRAINT deliveries_state_check
        CHECK (state IN ('received', 'forwarding', 'delivered', 'dead', 'discarded', 'ignored')) NOT VALID;
