"""What the HTTP routes of one relay process work with. The worker builds it; the routes know nothing of the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.forwarding.pipeline import Pipeline
    from relay.intake.body_budget import BodyBudget
    from relay.intake.rejections import Rejections
    from relay.intake.store_probe import StoreProbe
    from relay.monitoring.facts_check import FactsCheck
    from relay.monitoring.store_outage import StoreOutage
    from relay.settings import Settings
    from relay.store.database import Database
    from relay.store.instances import Instance
    from relay.store.spool import Spool
    from relay.telemetry.metrics import Counters
    from relay.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class IntakeContext:
    """The parts of one relay process that the routes read and call."""

    settings: Settings
    instance: Instance
    database: Database
    pipeline: Pipeline
    spool: Spool
    rejections: Rejections
    body_budget: BodyBudget
    counters: Counters
    facts_check: FactsCheck
    store_probe: StoreProbe
    tracing: Tracing
    outage: StoreOutage
