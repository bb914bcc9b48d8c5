"""The frozen state that the headline is made of, and how it comes from what the store has read.

A state is plain data: the engine in `relay.incident.headline` reads nothing else. A part that could not be read, or
that this relay does not have, is None.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relay.domain.rejections import rejection
from relay.domain.retry import without_agents_error
from relay.domain.targets import Target
from relay.store import browse, overview
from relay.store.round_trip import together

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.domain.alerts import Verdict
    from relay.domain.stats import FailureStreak
    from relay.store.backlog import BacklogState
    from relay.store.browse import Group
    from relay.store.database import Connection
    from relay.store.facts import Health
    from relay.store.gate import Hold, OpenBreaker
    from relay.store.overview import Overview
    from relay.store.refused import Refused
    from relay.store.replays import Plan


@dataclass(frozen=True, slots=True)
class StoreOutage:
    """Postgres is away since then (None: unknown). `refused` webhooks were answered 503 and are lost.

    `relay_answers` is False if the relay that was asked did not answer either.
    """

    since: datetime | None
    refused: int = 0
    relay_answers: bool = True


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What the spools hold. `share` is the fullest one's part of its limit, from 0 to 1."""

    receipts: int
    oldest_s: float | None = None
    share: float = 0


@dataclass(frozen=True, slots=True)
class HeldState:
    """An operator's hold: who holds forwarding, since when, until when (None: until it is released), and why."""

    who: str
    since: datetime
    until: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerState:
    """The open circuit breaker: since when and why."""

    since: datetime
    why: str


@dataclass(frozen=True, slots=True)
class BacklogSize:
    """How many deliveries wait for their turn, and the age of the oldest in seconds."""

    waiting: int
    oldest_s: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the headline may be about, at the moment `at`. Test webhooks are in no part of it.

    `relays` are alive, None if that could not be read; `relay_seen_s` is how long ago any relay was last known to
    run. `accepted_s` is the age of the newest webhook that was accepted. `oldest_s` is the age of the oldest delivery
    that is in flight, `usual_ms` the forwarding time of the last hour's 95th percentile. `streaks` are the latest
    failures by status; `success_at` is when the last webhook was delivered, `answers_since` when the first was after
    the latest failure, `latest_ms` how long the last few that were begun took. `agent` is the last probe; `agent_ended`
    says that its health failed and passes again.
    `unattended` is the newest window of the last hour in which no relay ran. `finding` is what only a diagnosis sees.
    """

    at: datetime
    relays: int | None = None
    relay_seen_s: float | None = None
    outage: StoreOutage | None = None
    spool: SpoolState | None = None
    refused: Sequence[Refused] = ()
    accepted_s: float | None = None
    in_flight: int = 0
    oldest_s: float | None = None
    usual_ms: float | None = None
    hold: HeldState | None = None
    breaker: BreakerState | None = None
    backlog: BacklogSize | None = None
    streaks: Sequence[FailureStreak] = ()
    groups: Sequence[Group] = ()
    success_at: datetime | None = None
    answers_since: datetime | None = None
    latest_ms: Sequence[float] = ()
    last_failure_at: datetime | None = None
    agent: Health | None = None
    agent_failed_at: datetime | None = None
    dead_letters: int = 0
    facts_aside: int = 0
    firing: Sequence[Verdict] = ()
    usual_per_hour: float = 0
    plan: Plan | None = None
    unattended: tuple[datetime, datetime] | None = None
    finding: str | None = None

    @property
    def refused_webhooks(self) -> list[Refused]:
        """`refused` without what scanners of the internet cause, the largest run first."""
        found = [one for one in self.refused if rejection(one.reason).is_webhook]
        return sorted(found, key=lambda one: (-one.in_run, one.reason))

    @property
    def real_groups(self) -> list[Group]:
        """The failure groups that hold more than test webhooks."""
        return [group for group in self.groups if not group.only_tests]

    def groups_of(self, status: str) -> list[Group]:
        """The real groups with this final status: one for each error."""
        return [group for group in self.real_groups if group.final_status == status]

    def age_s(self, moment: datetime) -> float:
        """Seconds since `moment`."""
        return (self.at - moment).total_seconds()

    def streak_of(self, status: str, *, replayed: bool = False) -> FailureStreak | None:
        """The latest failures with this final status."""
        return next((one for one in self.streaks if one.status == status and one.replayed == replayed), None)

    def gets_through_since(self, moment: datetime) -> bool:
        """True if a webhook was delivered after `moment`."""
        return self.success_at is not None and self.success_at > moment

    def agent_is_well_since(self, first: datetime, last: datetime) -> bool:
        """True if its health failed at `first` or later and has been good since `last`."""
        failed_at, agent = self.agent_failed_at, self.agent
        return agent is not None and agent.ok and agent.at > last and failed_at is not None and failed_at >= first


def _spool(state: Overview) -> SpoolState | None:
    """What the spools hold, if that is an alert: receipts that drain at once are none."""
    if not any(verdict.rule.name == "spool-p1" for verdict in state.firing):
        return None
    oldest = [one.oldest_s for one in state.spools if one.oldest_s is not None]
    return SpoolState(
        receipts=sum(one.receipts for one in state.spools),
        oldest_s=max(oldest, default=None),
        share=max((one.share for one in state.spools), default=0),
    )


def state_of(state: Overview, groups: Sequence[Group], plans: Sequence[Plan], *, finding: str | None = None) -> State:
    """The state as one reading of the store has it. `plans` are the newest replay plans, newest first."""
    day = state.last_24h.rate
    return State(
        spool=_spool(state),
        at=state.at,
        relays=len(state.alive),
        relay_seen_s=state.relay_seen_s,
        refused=state.refused,
        accepted_s=state.last_webhook_age_s,
        in_flight=state.in_flight,
        oldest_s=state.oldest_in_flight_s,
        usual_ms=state.last_1h.p95_ms,
        hold=_held(state.backlog.hold),
        breaker=_breaker(state.backlog.breaker),
        backlog=_size(state.backlog),
        streaks=state.streaks,
        groups=groups,
        success_at=state.last_success_at,
        answers_since=state.answers_since,
        latest_ms=state.latest_ms,
        last_failure_at=state.last_failure_at,
        agent=next((health for health in state.health if health.target == Target.AGENT), None),
        agent_failed_at=state.agent_failed_at,
        dead_letters=state.open_dead_letters,
        facts_aside=0 if state.facts_aside is None else state.facts_aside.facts,
        firing=state.firing,
        usual_per_hour=(day.delivered + day.failed) / 24,
        plan=next((plan for plan in plans if not plan.ended), None),
        unattended=next((gap for gap in state.unattended if (state.at - gap[1]).total_seconds() < 3_600), None),
        finding=finding,
    )


def _held(hold: Hold | None) -> HeldState | None:
    return None if hold is None else HeldState(hold.who, hold.since, hold.until, hold.reason)


def _breaker(breaker: OpenBreaker | None) -> BreakerState | None:
    return None if breaker is None else BreakerState(breaker.since, breaker.why)


def _size(backlog: BacklogState) -> BacklogSize:
    """Everything while forwarding is stopped, else the backlog: waits for order and retries are none."""
    return BacklogSize(backlog.size if backlog.stopped is None else backlog.waiting, backlog.oldest_s)


def without_agents_errors(state: State) -> State:
    """The state with the relay's own part of each group's error: an agent may repeat what a customer wrote."""
    return replace(
        state,
        groups=[replace(one, last_error=without_agents_error(one.last_error) or "") for one in state.groups],
    )


async def read(connection: Connection) -> tuple[Overview, State]:
    """The overview and the state of one moment.

    Raises:
        StoreUnavailable: Postgres is away.
    """
    found, groups, plans = await together(
        connection,
        overview.read_within(connection),
        browse.groups(connection),
        browse.plans(connection),
        one_moment=True,
    )
    return found, state_of(found, groups, plans)
