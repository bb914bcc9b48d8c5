"""Diagnosis, evidence and escalation of an incident."""
