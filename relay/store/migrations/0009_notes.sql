-- The reference Agent SDK's memory: one note for each webhook, however often that comes.

CREATE TABLE relay.notes (
    key             text PRIMARY KEY,             -- the webhook's idempotency key
    conversation_id bigint NOT NULL,
    draft           text NOT NULL,                -- what is posted, the same on every try
    note_id         bigint,                       -- Chatwoot's id of the note; NULL until it is known to be posted
    created_at      timestamptz NOT NULL DEFAULT now(),
    posted_at       timestamptz
);
CREATE INDEX notes_posted ON relay.notes (posted_at);
