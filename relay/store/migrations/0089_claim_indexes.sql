-- `deliveries_ready_of` and `deliveries_due_of` serve what these served.

DROP INDEX IF EXISTS relay.deliveries_ready;
DROP INDEX IF EXISTS relay.deliveries_due;
