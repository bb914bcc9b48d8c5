-- `deliveries_forwarding`, `deliveries_ready` and `deliveries_oldest` serve what this one served.

DROP INDEX IF EXISTS relay.deliveries_open;
