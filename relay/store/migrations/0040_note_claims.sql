-- The agent holds no connection while a model drafts: a claim that it renews takes the place of the session's lock.
-- Rows are keyed by account and message from here on; older ones by their webhook's idempotency key. An agent of the
-- version before may run beside a newer one.

ALTER TABLE relay.notes
    ALTER COLUMN draft DROP NOT NULL,             -- NULL until it is made
    ADD COLUMN account_id    bigint,
    ADD COLUMN message_id    bigint,              -- the newest message that the note answers
    ADD COLUMN claim         uuid,                -- fences an agent whose claim ran out
    ADD COLUMN claimed_until timestamptz,         -- NULL: no agent works on it
    ADD COLUMN posting_at    timestamptz;         -- a post began, and its end is not known
