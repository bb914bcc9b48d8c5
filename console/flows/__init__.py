"""Flows that a screen has: replay, discard, edit, test webhook, health check, copy as curl."""
