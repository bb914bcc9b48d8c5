-- relay: no transaction
-- What waits for its next attempt, by when that is due.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_due ON relay.deliveries ((plan_id IS NOT NULL), next_attempt_at) WHERE state = 'waiting';
