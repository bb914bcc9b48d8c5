-- relay: no transaction
-- Deliveries in a retry wait that take part in their conversation's order, by how long the wait is in all.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_long_retry ON relay.deliveries ((next_attempt_at - since), since) WHERE state = 'waiting' AND waits = 'retry' AND conversation_key IS NOT NULL;
