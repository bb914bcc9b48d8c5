-- relay: no transaction
-- The oldest deliveries that wait.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_oldest ON relay.deliveries (received_at) WHERE state IN ('received', 'waiting');
