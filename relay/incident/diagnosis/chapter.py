"""The parts of a diagnosis, and the sentences that several chapters share."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from relay.incident.cause import Headline
    from relay.incident.evidence import Reach


class Order(IntEnum):
    """The order of chapters: what stops everything first, what is well last.

    Chapters of one place are ordered by how many webhooks of the last hour they explain.
    """

    NO_RELAY = 1
    """No relay runs: webhooks are lost while this is so."""

    SILENCE = 2
    """Webhooks should come, and none does."""

    STOPPED = 3
    """Nothing is forwarded: an operator holds forwarding, or the circuit breaker is open."""

    LOSSES = 4
    """Webhooks came in the last hour and were refused, failed, or wait for too long."""

    SETUP = 5
    """Something is set up wrongly or fails its check, and has cost no webhook that is known of."""

    WAITING = 6
    """Nothing goes wrong now; what went wrong earlier waits for an operator."""

    WELL = 7
    """No problem."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked; `ok` is None where that could not be decided."""

    ok: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """One of the runbook's issues. `explains` is how many webhooks of the last hour it explains.

    `replay` holds the filters of the dead letters whose cause is gone.
    """

    name: str
    title: str
    order: Order
    verdict: str
    checks: tuple[Check, ...]
    resolution: tuple[str, ...] = ()
    explains: int = 0
    replay: tuple[str, ...] = field(default=())

    @property
    def problem(self) -> bool:
        """True if something is wrong here."""
        return self.order < Order.WELL


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The headline, and all chapters, the worst one first."""

    at: datetime
    cause: Headline
    chapters: tuple[Chapter, ...]

    @property
    def headline(self) -> str:
        """The cause, in a sentence."""
        return self.cause.sentence

    @property
    def problem(self) -> bool:
        """True if any chapter has found one."""
        return any(chapter.problem for chapter in self.chapters)


def span(seconds: float) -> str:
    """A length of time in its largest sensible unit: `45 s`, `40 min`, `3 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def reached(reach: Reach, what: str) -> str:
    """The text of the check whether a host can be reached."""
    result = "resolves and takes connections" if reach.ok else f"cannot be reached: {reach.error}"
    return f"{what} ({reach.target}) {result} from here"
