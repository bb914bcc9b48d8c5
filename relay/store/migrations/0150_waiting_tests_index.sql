-- relay: no transaction
-- Test webhooks that wait: relays claim them also while forwarding is held or the circuit breaker open.

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_waiting_tests ON relay.deliveries (id) WHERE test AND state IN ('received', 'waiting');
