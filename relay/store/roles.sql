-- Two roles with least rights (DESIGN, 6). They cannot log in: grant them to the login that the relay or the
-- console uses, for example  GRANT console_operator TO maria;
-- Run by `relay migrate --roles`, and by itself on the embedded server. Safe to run again.

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

-- The relay: works on its own tables, adds facts and retires old ones; creates and alters nothing.
GRANT USAGE ON SCHEMA relay TO relay_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA relay TO relay_service;
REVOKE INSERT, UPDATE, DELETE ON relay.schema_migrations FROM relay_service;
GRANT SELECT, INSERT, DELETE ON dashboard_facts TO relay_service;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA relay TO relay_service;

-- The console: reads everything, asks for replays, leaves actions. It cannot touch a delivery or a fact.
GRANT USAGE ON SCHEMA relay TO console_operator;
GRANT SELECT ON ALL TABLES IN SCHEMA relay TO console_operator;
GRANT SELECT ON dashboard_facts TO console_operator;
GRANT INSERT (request_id, requested_by, reason, filter, rate, canary, stop_after, edited_body, total)
    ON relay.replay_plans TO console_operator;
GRANT INSERT (plan_id, position, delivery, run) ON relay.replay_items TO console_operator;
GRANT INSERT (operator, action, plan_id, deliveries, reason, details) ON relay.operator_actions TO console_operator;

-- The console with --read-only: reads, and nothing else.
GRANT USAGE ON SCHEMA relay TO console_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA relay TO console_reader;
GRANT SELECT ON dashboard_facts TO console_reader;

-- dashboard_facts may be somebody else's: in a schema of its own, its ids from a sequence.
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
