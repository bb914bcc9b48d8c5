-- `deliveries_long_retry` serves what this one served.

DROP INDEX IF EXISTS relay.deliveries_retry_wait;
