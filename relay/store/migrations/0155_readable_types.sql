-- The figures count facts whose columns have a type that is a domain of a domain, or any type of text as the fact type,
-- such as name or citext. What a column's type prints is its output function's work, which is Postgres's or an
-- extension's own: nobody but a superuser makes a base type.

CREATE TEMP TABLE relay_readable ON COMMIT DROP AS
SELECT relay.facts_are_readable(facts) AS before FROM relay.fact_tables;

CREATE OR REPLACE FUNCTION relay.facts_are_readable(relation oid) RETURNS boolean LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) = 4
      FROM relay.fact_tables f JOIN pg_attribute a ON a.attrelid = f.facts
     CROSS JOIN LATERAL (
           WITH RECURSIVE below (type, base) AS (
               SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
                UNION ALL SELECT t.oid, t.typbasetype FROM below JOIN pg_type t ON t.oid = below.base)
           SELECT t.oid AS type, t.typcategory, t.typtype
             FROM below JOIN pg_type t ON t.oid = below.type WHERE below.base = 0) AS base
     WHERE f.facts = relation AND NOT a.attisdropped
       AND CASE WHEN a.attname IN ('value', 'metadata')
                THEN base.type IN ('jsonb'::regtype, 'json'::regtype, 'text'::regtype, 'varchar'::regtype)
                WHEN a.attname = 'fact_type'
                THEN base.typcategory = 'S' OR base.typtype = 'e'
                WHEN a.attname = 'recorded_at'
                THEN base.type IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
                ELSE false END
$$;

-- A table whose facts were not counted until now is followed anew: the last day is counted.
DO $$
BEGIN
    IF EXISTS (SELECT FROM relay_readable WHERE NOT before)
       AND EXISTS (SELECT FROM relay.fact_tables WHERE relay.facts_are_readable(facts)) THEN
        DELETE FROM relay.fact_tables;
        PERFORM relay.follow_facts();
    END IF;
END
$$;
