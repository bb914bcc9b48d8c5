"""Runs the replay plans and discards that operators request."""
