-- relay: no transaction
-- What waits for its next attempt at a destination, by when that is due.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_due_of ON relay.deliveries (coalesce(destination, ''), (plan_id IS NOT NULL), next_attempt_at) WHERE state = 'waiting';
