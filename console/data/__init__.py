"""Reads Postgres for the console: poller, snapshots, the operator session and the log window."""
