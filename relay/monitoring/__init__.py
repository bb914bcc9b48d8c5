"""Probes of the far ends, alert evaluation and notification."""
