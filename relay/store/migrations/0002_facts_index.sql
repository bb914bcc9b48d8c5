-- relay: no transaction
-- The index that the runbook's queries and the overview's edges use. Built beside running writers.

CREATE INDEX CONCURRENTLY IF NOT EXISTS dashboard_facts_type_time ON dashboard_facts (fact_type, recorded_at DESC);
