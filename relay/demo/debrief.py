"""What a fire drill came to: what happened when, which alerts it raised, what was done, and how long it took."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from relay.domain.format import plural, utc_clock, verb
from relay.errors import StoreUnavailable
from relay.incident import without_store
from relay.incident.diagnosis import diagnose
from relay.incident.evidence import gather
from relay.store import actions, alerts, browse, overview
from relay.store.sessions import connected
from relay.text import clean

if TYPE_CHECKING:
    from relay.demo.dead_mans_switch import DeadMansSwitch
    from relay.demo.drills import Drill
    from relay.settings import Settings
    from relay.store.actions import OperatorAction
    from relay.store.alerts import Raised
    from relay.store.browse import Group

_BEFORE_THE_END_S = 3.0
_SILENT_DRILL_S = 8.0
_ACTIONS = 200


@dataclass(slots=True)
class Observer:
    """Watches a drill from beside it: notes when it began, and diagnoses while the incident is under way."""

    drill: Drill
    dsn: str
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    cause: str = ""
    diagnosed_at: datetime | None = None

    @property
    def cause_at(self) -> datetime:
        """When the cause set in."""
        return self.began_at + timedelta(seconds=self.drill.begins_at_s)

    async def watch(self, settings: Settings) -> None:
        """Run beside the drill."""
        self.began_at = datetime.now(UTC)
        lasts = self.drill.lasts_s - _BEFORE_THE_END_S if self.drill.webhooks_a_second else _SILENT_DRILL_S
        await asyncio.sleep(self.drill.begins_at_s + lasts)
        try:
            async with connected(self.dsn) as connection:
                diagnosis = diagnose(await gather(connection, settings))
        except StoreUnavailable as error:
            self.cause = (await without_store.partial_view(settings, self.dsn, error)).cause.sentence
            self.diagnosed_at = datetime.now(UTC)
        else:
            self.cause, self.diagnosed_at = diagnosis.headline, diagnosis.at


@dataclass(frozen=True, slots=True)
class Debrief:
    """What a drill came to. `raised` and `done` are oldest first; `dead_letters` are those that still wait.

    `heartbeat_missed` is when the service behind the heartbeat has reported that none came.
    """

    drill: Drill
    observer: Observer
    raised: list[Raised]
    done: list[OperatorAction]
    dead_letters: list[Group]
    ended_at: datetime
    heartbeat_missed: list[datetime] = field(default_factory=list)

    @property
    def missing(self) -> set[str]:
        """Alerts that should have been raised."""
        return set(self.drill.alerts) - {one.rule for one in self.raised}

    @property
    def unexpected(self) -> set[str]:
        """Alerts that should not."""
        return {one.rule for one in self.raised} - self.drill.alerts

    @property
    def went_as_planned(self) -> bool:
        """True if the alerts are the drill's, the diagnosis named the cause, and nothing died that must not."""
        as_planned = not self.missing and not self.unexpected and self.drill.cause in self.observer.cause
        as_planned = as_planned and bool(self.heartbeat_missed) == self.drill.misses_heartbeat
        return as_planned and not (self.drill.spares_all and self.dead_letters)

    def lines(self) -> list[str]:
        """The story."""
        cause_at = self.observer.cause_at
        events = [(self.observer.began_at + timedelta(seconds=phase.at_s), phase.text) for phase in self.drill.phases]
        events += [
            (one.at, f"alert raised: {one.severity} {one.rule}{_after(one.at, cause_at)}") for one in self.raised
        ]
        events += [
            (at, f"the heartbeat's service reports that no relay fetched its address{_after(at, cause_at)}")
            for at in self.heartbeat_missed
        ]
        events += [(one.at, f"{one.who}: {_described(one)}{_after(one.at, cause_at)}") for one in self.done]
        if self.observer.diagnosed_at is not None:
            events.append((self.observer.diagnosed_at, f"diagnosis: {self.observer.cause}"))
        story = [f"  {utc_clock(at)}  {clean(text)}" for at, text in sorted(events) if at <= self.ended_at]
        return [f"Drill {self.drill.name}: {self.drill.summary}", *story, *self._verdict()]

    def _verdict(self) -> list[str]:
        alerts_line = f"Alerts: {len(self.raised)} raised, as they should be"
        if self.missing or self.unexpected:
            parts = [f"missing {', '.join(sorted(self.missing))}"] if self.missing else []
            parts += [f"unexpected {', '.join(sorted(self.unexpected))}"] if self.unexpected else []
            alerts_line = f"Alerts: {'; '.join(parts)}"
        acted = "No operator acted."
        if self.done:
            first = (self.done[0].at - self.observer.cause_at).total_seconds()
            acted = f"The first action came {first:.0f} s after the cause, {len(self.done)} in all."
        left = sum(group.count for group in self.dead_letters)
        queue = "No dead letter waits."
        if left:
            queue = f"{plural(left, 'dead letter')} still {verb(left, 'wait')}."
        if self.drill.misses_heartbeat:
            noticed = "reported as missing, as it should be" if self.heartbeat_missed else "NOT reported as missing"
            alerts_line += f"\nHeartbeat: {noticed}"
        causes = [f"  {group.count} × {group.last_error}" for group in self.dead_letters]
        return [alerts_line, f"{acted} {queue}", *causes]


def _after(at: datetime, cause_at: datetime) -> str:
    return f" ({(at - cause_at).total_seconds():.0f} s after the cause)"


def _described(action: OperatorAction) -> str:
    total = action.details.get("total")
    about = [f"plan {action.plan_id}"] if action.plan_id is not None else []
    about += [plural(total, "delivery")] if total else []
    about += [action.reason] if action.reason else []
    return f"{action.action} ({', '.join(about)})" if about else action.action


async def debrief(drill: Drill, observer: Observer, switch: DeadMansSwitch) -> Debrief:
    """Gather what a drill came to from its database, and from the service that watched the heartbeat."""
    async with connected(observer.dsn) as connection:
        state = await overview.read(connection)
        return Debrief(
            drill=drill,
            observer=observer,
            raised=await alerts.raised_since(connection, observer.began_at),
            done=(await actions.newest(connection, limit=_ACTIONS))[::-1],
            dead_letters=await browse.groups(connection),
            ended_at=state.at,
            heartbeat_missed=switch.reports,
        )
