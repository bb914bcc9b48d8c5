-- The failure groups come from their roll-up and `deliveries_of_a_cause`.

DROP INDEX IF EXISTS relay.deliveries_dead_causes;
