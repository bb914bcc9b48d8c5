-- relay: no transaction
-- The leases: what recovery looks through. The backlog is not among them.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_forwarding ON relay.deliveries (owner, claimed_at) WHERE state = 'forwarding';
