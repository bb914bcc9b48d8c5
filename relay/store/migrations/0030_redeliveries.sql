-- A redelivery within 60 s of a death is one incident with it: it leaves no second dead letter (DESIGN, 1).

-- The facts of a run that ended dead, without the dead letter if the run before ended within the minute in which this
-- one was claimed. Only runs that ended have attempts; a run that was taken over from a dead relay has none.
CREATE FUNCTION relay.facts_of_redelivery(facts jsonb, delivery bigint, run integer, claimed_at timestamptz)
    RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN EXISTS (
               SELECT FROM relay.attempts a
                WHERE a.delivery = $2 AND a.run = $3 - 1
                  AND a.started_at + make_interval(secs => a.duration_ms / 1000.0) > $4 - interval '60 seconds')
           THEN (SELECT coalesce(jsonb_agg(f), '[]') FROM jsonb_array_elements($1) AS f
                  WHERE f ->> 'fact_type' <> 'support.webhook.dead_letter')
           ELSE $1 END
$$;
REVOKE EXECUTE ON FUNCTION relay.facts_of_redelivery(jsonb, bigint, integer, timestamptz) FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'relay_service'
                AND has_table_privilege(oid, 'relay.replay_plans', 'SELECT')) THEN
        GRANT EXECUTE ON FUNCTION relay.facts_of_redelivery(jsonb, bigint, integer, timestamptz) TO relay_service;
    END IF;
END
$$;
