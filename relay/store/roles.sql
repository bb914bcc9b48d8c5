-- Three roles with least rights (DESIGN, 6). They cannot log in: grant them to the login that the relay or the
-- console uses, for example  GRANT console_operator TO maria;
-- Run by `relay migrate --roles`, by itself on the embedded server, and after the steps of a migration where the roles
-- are in use: this is the one place for grants, steps from 0096 on hold none. Safe to run again.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'relay_service') THEN
        CREATE ROLE relay_service NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'console_operator') THEN
        CREATE ROLE console_operator NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'console_reader') THEN
        CREATE ROLE console_reader NOLOGIN;
    END IF;
END
$$;

-- Default privileges of the owner may have given away more than what follows.
REVOKE ALL ON SCHEMA relay FROM PUBLIC, relay_service, console_operator, console_reader;
REVOKE ALL ON ALL TABLES IN SCHEMA relay FROM PUBLIC, relay_service, console_operator, console_reader;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA relay FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA relay FROM PUBLIC, relay_service, console_operator, console_reader;
GRANT USAGE ON SCHEMA relay TO relay_service, console_operator, console_reader;

-- All three read everything. These functions only compute; queries call them with the caller's rights.
GRANT SELECT ON ALL TABLES IN SCHEMA relay TO relay_service, console_operator, console_reader;
GRANT SELECT ON dashboard_facts TO relay_service, console_operator, console_reader;
GRANT EXECUTE ON FUNCTION relay.whole(text), relay.tally(text, jsonb, jsonb), relay.payload(bytea),
    relay.json_or_null(jsonb), relay.json_or_null(json), relay.json_or_null(text)
    TO relay_service, console_operator, console_reader;

-- The relay: works on its own tables, adds facts and retires old ones; creates and alters nothing. Of a replay plan it
-- writes how far it got, never who asked for what.
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA relay TO relay_service;
REVOKE INSERT, UPDATE, DELETE ON relay.schema_migrations, relay.fact_tables, relay.operator_actions, relay.holds,
    relay.acknowledgements, relay.redirects, relay.identity, relay.gate FROM relay_service;
REVOKE INSERT, UPDATE ON relay.replay_plans FROM relay_service;
REVOKE INSERT, UPDATE, DELETE ON relay.replay_items FROM relay_service;
GRANT UPDATE (state, owner, stopped_why, started_at, finished_at, total, delivered, dead, skipped)
    ON relay.replay_plans TO relay_service;
GRANT UPDATE (state, settled_at) ON relay.replay_items TO relay_service;
REVOKE INSERT, DELETE ON relay.discards FROM relay_service;
GRANT SELECT, INSERT, DELETE ON dashboard_facts TO relay_service;
GRANT EXECUTE ON FUNCTION relay.refusal(text, text, text, text, text, text, text),
    relay.write_facts(jsonb[], text, boolean), relay.restore_facts(integer), relay.expect_facts(bigint, bigint),
    relay.kept_facts(bigint), relay.facts_are_followed(), relay.facts_of_redelivery(jsonb, bigint, integer, timestamptz),
    relay.promote(text[], bigint[]), relay.pass_turns(text[], bigint[], uuid[], uuid),
    relay.release_order(interval), relay.undo_store(), relay.end_holds(), relay.end_drain(),
    relay.give_back_abandoned(text, integer), relay.release_destination(text, integer),
    relay.restore_destination(text, integer), relay.other_wait(text, boolean), relay.try_promote(text[], bigint[]),
    relay.open_head(text, text, bigint), relay.rejoin(text, text, text), relay.lacks_head(text, text),
    relay.heal_order(text, integer)
    TO relay_service;

-- Replays, discards, holds, redirects and the audit are written through functions that check: by the console (without
-- --read-only), and by the relay for its automatic replays. Neither can touch a row of theirs afterwards.
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA relay FROM console_operator, console_reader;
GRANT EXECUTE ON FUNCTION
    relay.ask_replay(uuid, text, text, text, double precision, integer, integer, bytea, bigint[], integer[]),
    relay.control_replay(bigint, text, text, text),
    relay.ask_discard(bigint[], text, text),
    relay.record_action(text, text, text, jsonb),
    relay.store_backfill(text[], text[], bytea[], text),
    relay.hold(text, text, double precision),
    relay.release(text, double precision),
    relay.acknowledge(text, text, text, double precision),
    relay.ask_redirect(text, text, text, text),
    relay.redirect(bigint, integer)
    TO relay_service, console_operator;

-- The tables' own ids need no right to a sequence.
REVOKE ALL ON ALL SEQUENCES IN SCHEMA relay FROM relay_service, console_operator, console_reader;

-- dashboard_facts may belong to another application: in a schema of its own, its ids from a sequence.
DO $$
DECLARE
    own regclass;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %s TO relay_service, console_operator, console_reader',
                   (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'dashboard_facts'::regclass));
    FOR own IN
        SELECT s.oid FROM pg_attrdef a
          JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
          JOIN pg_class s ON d.refclassid = 'pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
         WHERE a.adrelid = 'dashboard_facts'::regclass
    LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO relay_service', own);
    END LOOP;
END
$$;
