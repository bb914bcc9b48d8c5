-- relay: no transaction
-- What may be claimed of a destination, live traffic before replays, oldest first.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_ready_of ON relay.deliveries (coalesce(destination, ''), (plan_id IS NOT NULL), id) WHERE state = 'received' AND NOT blocked;
