"""Diagnosis of an incident: the runbook's four troubleshooting chapters as checks of the live system.

Pure: evidence in, verdicts out. RUNBOOK, "Troubleshooting", for chapters and resolutions; DESIGN, 8. Each chapter has
a module of its own and says what was checked, what was found, a verdict, and the resolution that fits. The worst
chapter comes first; the diagnosis' first line is the headline. `evidence` gathers; this package does no I/O.
"""

from relay.incident.diagnosis.chapter import Chapter, Check, Diagnosis, Order
from relay.incident.diagnosis.dead_letters import replay_command
from relay.incident.diagnosis.walk import diagnose

__all__ = ["Chapter", "Check", "Diagnosis", "Order", "diagnose", "replay_command"]
