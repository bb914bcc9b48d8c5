-- relay: no transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS notes_created ON relay.notes (created_at);
