-- relay: no transaction
-- Heads of conversations in a retry wait, by when it began.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_retry_wait ON relay.deliveries (since) WHERE state = 'waiting' AND waits = 'retry' AND conversation_key IS NOT NULL;
