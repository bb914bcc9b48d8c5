-- Retention goes by created_at: a draft that is never posted expires as well.

DROP INDEX IF EXISTS relay.notes_posted;
