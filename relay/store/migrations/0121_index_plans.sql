-- A session keeps the plans of a function's statements. One that was made while the tables were small, and that reads a
-- whole table or index, would be kept while they grow: until they are analyzed, each call would then take ever longer.
-- What is called once a second at most is planned anew each time.

ALTER FUNCTION relay.promote(text[], bigint[]) SET enable_seqscan = off;
ALTER FUNCTION relay.heal_order(text, integer) SET plan_cache_mode = force_custom_plan;

-- A head whose retry wait has lasted for `after` delays its conversation no longer. The wait ends when the next attempt
-- is due: what a delivery waits after that, for a hold or a slot, does not count. Rows are locked one by one, by their
-- keys, which leaves no join to plan.
CREATE OR REPLACE FUNCTION relay.release_order(after interval) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms' SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    keys text[];
    positions bigint[];
BEGIN
    WITH found AS MATERIALIZED (
        SELECT d.id, d.conversation_key AS key, d.position FROM relay.deliveries d
         WHERE d.state = 'waiting' AND d.waits = 'retry' AND d.conversation_key IS NOT NULL
           AND d.next_attempt_at - d.since > after AND d.since < now() - after
         ORDER BY d.next_attempt_at - d.since, d.since LIMIT 500
    ), late AS MATERIALIZED (
        SELECT f.id, f.key, f.position FROM (SELECT * FROM found ORDER BY key) AS f
         CROSS JOIN LATERAL (SELECT FROM relay.conversations c WHERE c.key = f.key FOR UPDATE SKIP LOCKED) AS c
         CROSS JOIN LATERAL (
               SELECT FROM relay.deliveries d
                WHERE d.id = f.id AND CASE WHEN d.state = 'waiting' AND d.waits = 'retry' THEN d.conversation_key = f.key END
                  FOR UPDATE SKIP LOCKED) AS d
    ), released AS (
        UPDATE relay.deliveries d SET conversation_key = NULL FROM late l WHERE d.id = l.id
    )
    SELECT array_agg(l.key), array_agg(l.position) INTO keys, positions FROM late l;
    RETURN coalesce(relay.try_promote(keys, positions), 0);
END
$$;
