-- relay: no transaction
-- The failure groups: what the open dead letters share, read from the index alone.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_dead_causes ON relay.deliveries (final_status, last_error, event, finished_at) WHERE state = 'dead';
