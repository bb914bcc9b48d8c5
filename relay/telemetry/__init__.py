"""Forwarding log, log sink and metrics."""
