-- The reason of a refusal tells a row that no partition takes from a check constraint.

-- Why a statement on dashboard_facts failed: SQLSTATE and the names of trigger, constraint and column. Postgres's own
-- message is added only where it holds nothing but names (class 42, raised by the statement itself). `partition` stands
-- for a row that no partition takes; a trigger may be one of a partition.
CREATE OR REPLACE FUNCTION relay.refusal(
    sqlstate_ text, message text, context text, constraint_ text, column_ text, fact_type text, fact_scope text
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ', sqlstate_,
        (SELECT string_agg(dropping.name, ' ' ORDER BY dropping.name) FROM (
            SELECT 'trigger ' || quote_ident(t.tgname) AS name FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = to_regclass('dashboard_facts') AND NOT t.tgisinternal AND t.tgenabled <> 'D'
               AND t.tgtype & 7 = 7  -- before insert, for each row
             UNION ALL SELECT 'rule ' || quote_ident(r.rulename) FROM pg_catalog.pg_rewrite r
             WHERE r.ev_class = to_regclass('dashboard_facts') AND r.ev_type = '3' AND r.is_instead) AS dropping
          WHERE sqlstate_ = 'RL002'),
        (SELECT 'trigger ' || quote_ident(t.tgname) FROM pg_catalog.pg_trigger t
          WHERE (t.tgrelid = to_regclass('dashboard_facts')
                 OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(to_regclass('dashboard_facts'))))
            AND NOT t.tgisinternal AND strpos(context, t.tgfoid::regprocedure::text) > 0 ORDER BY t.tgname LIMIT 1),
        CASE WHEN sqlstate_ = '23514' AND coalesce(constraint_, '') = ''
              AND split_part(context, E'\n', 1) ~ 'dashboard_facts|relay\.(facts_aside|(write|restore)_facts\()'
             THEN 'partition' END,
        (SELECT 'constraint ' || quote_ident(n.name) FROM (
            SELECT conname AS name FROM pg_catalog.pg_constraint WHERE conname = constraint_
             UNION SELECT relname FROM pg_catalog.pg_class WHERE relname = constraint_) AS n LIMIT 1),
        (SELECT 'column ' || quote_ident(a.attname) FROM pg_catalog.pg_attribute a WHERE a.attname = column_ LIMIT 1),
        (SELECT format('column %I %s', a.attname, format_type(a.atttypid, a.atttypmod)) FROM pg_catalog.pg_attribute a
          WHERE sqlstate_ = '22001' AND a.attrelid = to_regclass('dashboard_facts') AND a.atttypmod > 4
            AND length(CASE a.attname WHEN 'fact_type' THEN fact_type WHEN 'scope' THEN fact_scope END) > a.atttypmod - 4
          ORDER BY a.attnum LIMIT 1),
        CASE WHEN left(sqlstate_, 2) = '42'
              AND split_part(context, E'\n', 1) ~ 'dashboard_facts|relay\.(write|restore)_facts\(' THEN message END)
$$;

-- `CREATE OR REPLACE` took the function's search_path away.
DO $$
BEGIN
    EXECUTE 'ALTER FUNCTION relay.refusal(text, text, text, text, text, text, text) SET search_path = ' || concat_ws(', ',
        'pg_catalog',
        (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('dashboard_facts')),
        nullif(current_setting('search_path'), ''), 'pg_temp');
END
$$;
