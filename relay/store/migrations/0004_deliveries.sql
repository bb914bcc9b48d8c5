-- Deliveries, their attempts, who forwards them, and what operators ask for (DESIGN, 6).

-- A running relay process. Its leases last as long as `lease_until`, which its heartbeat moves on.
CREATE TABLE relay.instances (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,               -- host, network and bound address: one at a time can hold it
    boot         uuid NOT NULL,               -- one start of that relay; its workers share it
    slot         integer NOT NULL,            -- the worker's number within it
    pid          integer NOT NULL,
    version      text NOT NULL,
    signed       boolean NOT NULL,            -- whether it verifies signatures
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    lease_until  timestamptz NOT NULL,
    stopped_at   timestamptz,
    in_flight    integer NOT NULL DEFAULT 0,
    agent        text NOT NULL,               -- the endpoint it forwards to, without credentials
    counters     jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX instances_alive ON relay.instances (heartbeat_at) WHERE stopped_at IS NULL;

CREATE TABLE relay.deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id     text NOT NULL CONSTRAINT deliveries_delivery_id UNIQUE,
    state           text NOT NULL CHECK (state IN ('received', 'forwarding', 'delivered', 'dead', 'discarded')),
    run             integer NOT NULL DEFAULT 1,   -- runs of the retry loop, the current one included
    owner           uuid,                         -- the instance that holds the lease; NULL unless forwarding
    claim           uuid NOT NULL,                -- made anew by whoever takes it on: what fences a late finisher
    plan_id         bigint,                       -- the replay plan that the current or last run belongs to
    test            boolean NOT NULL,
    event           text,
    conversation_id text,
    customer        boolean NOT NULL,             -- a message that a customer wrote and waits to have answered
    received_at     timestamptz NOT NULL DEFAULT now(),
    claimed_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    attempts        integer,                      -- of the last finished run, like all that follows
    duration_ms     integer,
    final_status    text,
    last_error      text,
    agent_status    text,
    headers         jsonb NOT NULL,
    body            bytea NOT NULL,
    CHECK (state <> 'forwarding' OR owner IS NOT NULL)
) WITH (toast_tuple_target = 256);                -- bodies go out of line: a change of state copies none

-- The leases: what recovery looks through. Small, whatever the history.
CREATE INDEX deliveries_open ON relay.deliveries (owner, claimed_at) WHERE state IN ('received', 'forwarding');
-- The dead-letter queue, newest first, in keyset pages.
CREATE INDEX deliveries_dead ON relay.deliveries (finished_at DESC, id DESC) WHERE state = 'dead';
-- Customers who wait for an answer that is among the dead letters.
CREATE INDEX deliveries_stalled ON relay.deliveries (received_at) WHERE state = 'dead' AND customer AND NOT test;
-- Windows of time; insertion order is time order.
CREATE INDEX deliveries_received ON relay.deliveries USING brin (received_at) WITH (pages_per_range = 32);

CREATE TABLE relay.attempts (
    delivery    bigint NOT NULL,                  -- relay.deliveries.id; both go in one retention step
    run         integer NOT NULL,
    number      integer NOT NULL,
    started_at  timestamptz NOT NULL,
    wait_ms     integer NOT NULL,
    duration_ms integer NOT NULL,
    status      text NOT NULL,
    error       text,
    answer      text NOT NULL,
    PRIMARY KEY (delivery, run, number)
);

-- A replay: which deliveries, who, why, how fast, and how far it got. Operators insert it, relays work on it.
CREATE TABLE relay.replay_plans (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id   uuid NOT NULL UNIQUE,            -- asked for twice is run once
    state        text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'paused', 'stopped', 'done')),
    requested_by text NOT NULL,
    reason       text NOT NULL DEFAULT '',
    filter       text NOT NULL DEFAULT '',
    rate         double precision CHECK (rate > 0),              -- sends a second; NULL is as fast as it goes
    canary       integer NOT NULL DEFAULT 0 CHECK (canary >= 0), -- the first n alone; the rest only if they succeed
    stop_after   integer NOT NULL DEFAULT 0 CHECK (stop_after >= 0), -- failures in a row; 0 is never
    edited_body  bytea,                           -- sent in place of the one delivery's body, which is kept
    total        integer NOT NULL DEFAULT 0,
    delivered    integer NOT NULL DEFAULT 0,
    dead         integer NOT NULL DEFAULT 0,
    skipped      integer NOT NULL DEFAULT 0,      -- no longer the dead letter that was frozen: somebody else dealt with it
    owner        uuid,
    stopped_why  text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    finished_at  timestamptz
);
CREATE INDEX replay_plans_open ON relay.replay_plans (id) WHERE state IN ('queued', 'running', 'paused');

-- The frozen deliveries of a plan. `run` is the run that had failed: once it has been run again, by whatever
-- plan, the item is skipped.
CREATE TABLE relay.replay_items (
    plan_id    bigint NOT NULL REFERENCES relay.replay_plans ON DELETE CASCADE,
    position   integer NOT NULL,
    delivery   bigint NOT NULL,
    run        integer NOT NULL,
    state      text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sending', 'delivered', 'dead', 'skipped')),
    settled_at timestamptz,
    PRIMARY KEY (plan_id, position)
);
CREATE INDEX replay_items_delivery ON relay.replay_items (delivery);
CREATE INDEX replay_items_pending ON relay.replay_items (plan_id, position) WHERE state = 'pending';

-- The audit: everything an operator did, and what a relay is asked to do about a plan or dead letters.
CREATE TABLE relay.operator_actions (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    operator   text NOT NULL,
    action     text NOT NULL,                     -- replay, replay.pause, replay.resume, replay.stop, discard, …
    plan_id    bigint,
    deliveries bigint[],                          -- discard: which
    reason     text NOT NULL DEFAULT '',
    details    jsonb NOT NULL DEFAULT '{}',
    applied_at timestamptz,
    result     jsonb
);
CREATE INDEX operator_actions_plan ON relay.operator_actions (plan_id, id) WHERE plan_id IS NOT NULL;
CREATE INDEX operator_actions_open ON relay.operator_actions (id) WHERE action = 'discard' AND applied_at IS NULL;

-- The forwarding log, for the live tail.
CREATE TABLE relay.log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL,
    level       text NOT NULL,
    scope       text NOT NULL,
    message     text NOT NULL,
    fields      jsonb NOT NULL,
    delivery_id text,
    instance    uuid NOT NULL
);

-- Work that one relay at a time does for all: probing, cleaning up. Held until `until`, then anybody's.
CREATE TABLE relay.duties (
    name  text PRIMARY KEY,
    owner uuid NOT NULL,
    until timestamptz NOT NULL
);

-- A body as jsonb, for looking into it; NULL for the rare one that jsonb refuses.
CREATE FUNCTION relay.payload(body bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;
