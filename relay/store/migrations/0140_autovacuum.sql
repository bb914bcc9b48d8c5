-- Autovacuum waits for a fifth of a table to be dead by default: in a month's deliveries that is a week of traffic, in
-- which every index grows. Each delivery's row is written twice, and retention deletes as many as come in. A vacuum of a
-- fiftieth visits only the pages that have changed. The tables of a few rows that every delivery updates are vacuumed
-- without a pause: they must stay a few pages. No lock that a reader or a writer waits for is taken.
ALTER TABLE relay.deliveries SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE relay.attempts SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE relay.log SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE relay.conversations SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE relay.signatures SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
ALTER TABLE relay.minutes SET (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE relay.hours SET (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE relay.dead_causes SET (autovacuum_vacuum_cost_delay = 0);
ALTER TABLE relay.backlog_counts SET (autovacuum_vacuum_cost_delay = 0);
ALTER TABLE relay.attempt_counts SET (autovacuum_vacuum_cost_delay = 0);
ALTER TABLE relay.destination_slots SET (autovacuum_vacuum_cost_delay = 0);
ALTER TABLE relay.rates SET (autovacuum_vacuum_cost_delay = 0);
ALTER TABLE relay.instances SET (autovacuum_vacuum_cost_delay = 0);
