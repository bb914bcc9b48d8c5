-- relay: no transaction
-- What waits behind an earlier delivery of its conversation.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_blocked ON relay.deliveries (conversation_key, position) WHERE blocked;
