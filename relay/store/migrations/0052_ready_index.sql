-- relay: no transaction
-- What may be claimed, live traffic before replays, oldest first.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_ready ON relay.deliveries ((plan_id IS NOT NULL), id) WHERE state = 'received' AND NOT blocked;
