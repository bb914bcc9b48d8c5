-- relay: no transaction
-- What waits for a destination, by whether the destination is the reason, oldest first.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_waiting_of ON relay.deliveries (coalesce(destination, ''), (CASE WHEN waits = 'destination' THEN 1 ELSE 0 END), received_at) WHERE state IN ('received', 'waiting');
