-- What leaves no other trace once it is over, for the timeline of an incident: the circuit breaker's openings and
-- closings, and when a spool began to hold receipts and was empty again.
CREATE TABLE relay.events (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    kind   text NOT NULL CHECK (kind IN ('breaker.opened', 'breaker.closed', 'spool.filled', 'spool.drained')),
    detail text NOT NULL DEFAULT ''               -- why the breaker opened; the spool's host
);
CREATE INDEX events_at ON relay.events (at);

CREATE FUNCTION relay.record_breaker() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO relay.events (kind, detail)
    SELECT CASE WHEN NEW.opened_at IS NULL THEN 'breaker.closed' ELSE 'breaker.opened' END, coalesce(NEW.why, '');
    RETURN NULL;
END
$$;
CREATE TRIGGER relay_recorded AFTER UPDATE OF opened_at ON relay.breaker FOR EACH ROW
    WHEN ((OLD.opened_at IS NULL) <> (NEW.opened_at IS NULL)) EXECUTE FUNCTION relay.record_breaker();

-- A spool fills while Postgres is away, and is reported afterwards: what counts is when its oldest receipt came.
CREATE FUNCTION relay.record_spool() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before CONSTANT bigint := CASE WHEN TG_OP = 'UPDATE' THEN OLD.receipts ELSE 0 END;
BEGIN
    IF (before > 0) <> (NEW.receipts > 0) THEN
        INSERT INTO relay.events (at, kind, detail)
        SELECT CASE WHEN NEW.receipts > 0 THEN least(coalesce(NEW.oldest_at, now()), now()) ELSE now() END,
               CASE WHEN NEW.receipts > 0 THEN 'spool.filled' ELSE 'spool.drained' END, NEW.host;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER relay_recorded AFTER INSERT OR UPDATE OF receipts ON relay.spools FOR EACH ROW
    EXECUTE FUNCTION relay.record_spool();

DO $$
DECLARE
    may record;
BEGIN
    FOR may IN
        SELECT r.rolname, p.privilege
        FROM pg_roles r CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)
        WHERE r.rolname IN ('relay_service', 'console_operator', 'console_reader')
          AND has_table_privilege(r.oid, 'relay.deliveries', p.privilege)
    LOOP
        EXECUTE format('GRANT %s ON relay.events TO %I', may.privilege, may.rolname);
    END LOOP;
END
$$;
