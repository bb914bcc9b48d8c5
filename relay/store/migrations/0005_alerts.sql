-- Alerts that stand, and the notices of their coming and going (DESIGN, 7).

-- A rule that fires, since when, and when its condition last held: what keeps it from flapping at the edge.
CREATE TABLE relay.alerts (
    rule    text PRIMARY KEY,
    since   timestamptz NOT NULL DEFAULT now(),
    held_at timestamptz NOT NULL DEFAULT now()
);

-- What is to be posted to RELAY_ALERT_WEBHOOK_URL, written with the transition itself and kept until it is sent.
CREATE TABLE relay.notices (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    text       text NOT NULL,
    tries      integer NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT now(),
    sent_at    timestamptz
);
CREATE INDEX notices_due ON relay.notices (due_at) WHERE sent_at IS NULL;
