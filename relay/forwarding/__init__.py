"""Forwards stored deliveries to the Agent SDK and records each outcome."""
