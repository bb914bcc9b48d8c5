-- relay: no transaction
-- What came for one conversation, dead or not, newest first.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_conversation ON relay.deliveries (conversation_id, id DESC) WHERE conversation_id IS NOT NULL;
