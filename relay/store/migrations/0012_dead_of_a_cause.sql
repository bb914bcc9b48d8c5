-- relay: no transaction
-- The dead letters of one failure group, newest first: its first, its last, its fresh ones, and its pages.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_of_a_cause ON relay.deliveries (coalesce(final_status, ''), coalesce(last_error, ''), finished_at DESC, id DESC) WHERE state = 'dead';
