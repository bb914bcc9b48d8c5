-- A row of relay.deliveries without its body is larger than 256 bytes since it names its conversation and destination.
-- Postgres therefore stored short columns such as the delivery id out of line, each in a row of its own. With this size
-- only bodies and long headers are.
ALTER TABLE relay.deliveries SET (toast_tuple_target = 512);
