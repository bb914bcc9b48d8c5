"""Replay requests, for the command line, the console and automatic replay alike: their defaults, and how one is built.

Storing a request is `relay.store.replays`, carrying it out `relay.replay.runner`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from relay.domain.format import plural
from relay.store.replays import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.replays import DeadLetter


@dataclass(frozen=True, slots=True)
class Pace:
    """How a replay sends. `rate` is deliveries a second, None for no limit; `canary` the number that are sent first and
    must all succeed; `stop_after` the failures in a row that end it, 0 for never.
    """

    rate: float | None
    canary: int
    stop_after: int

    def faster(self) -> Pace:
        """Return it with the next higher rate of `RATES`, no limit above the last one."""
        if self.rate is None:
            return self
        current = self.rate
        return replace(self, rate=next((rate for rate in RATES if rate > current), None))

    def slower(self) -> Pace:
        """Return it with the next lower rate of `RATES`."""
        lower = [rate for rate in RATES if self.rate is None or rate < self.rate]
        return replace(self, rate=lower[-1] if lower else self.rate)

    def next_canary(self, count: int) -> Pace:
        """Return it with the next size of `CANARIES` that is less than `count`; the first follows the last."""
        return replace(self, canary=_next(self.canary, [size for size in CANARIES if size < count]))

    def next_stop(self) -> Pace:
        """Return it with the next stop rule of `STOPS`; the first follows the last."""
        return replace(self, stop_after=_next(self.stop_after, STOPS))

    def canary_of(self, count: int) -> int:
        """The size of the canary of a replay of `count` deliveries: a single delivery needs none."""
        return self.canary if count > 1 else 0

    def seconds(self, count: int) -> float | None:
        """How long `count` deliveries take at this rate, at least one second; None without a limit."""
        return None if self.rate is None else max(1.0, count / self.rate)

    def described(self, count: int) -> str:
        """Canary, rate and stop rule of a replay of `count` deliveries, as an operator reads them."""
        canary = self.canary_of(count)
        rate = "as fast as the relay allows" if self.rate is None else f"up to {self.rate:g}/s"
        first = f"first {canary} as a canary, then " if canary else ""
        stop = f", stop at {plural(self.stop_after, 'failure')} in a row" if self.stop_after and count > 1 else ""
        return f"{first}{rate}{stop}"


RATES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""The rates that an operator steps through. No limit follows the last one."""

CANARIES = (0, 1, 5, 20)
STOPS = (0, 1, 3, 10)
"""The canary sizes and stop rules that an operator steps through; 0 is none."""


def _next(current: int, choices: Sequence[int]) -> int:
    """Return the first of `choices` above `current`, else the first one."""
    return next((choice for choice in choices if choice > current), choices[0] if choices else current)


DEFAULT = Pace(rate=20.0, canary=1, stop_after=3)
"""The pace of a replay unless the operator asks for another."""

AUTOMATIC = replace(DEFAULT, rate=5.0)
"""The pace of automatic replay: slower, because no operator watches it."""


def plan_request(
    letters: Sequence[DeadLetter],
    *,
    requested_by: str,
    pace: Pace = DEFAULT,
    reason: str = "",
    filter: str = "",  # noqa: A002 - the field's name
    edited_body: bytes | None = None,
    request_id: UUID | None = None,
) -> PlanRequest:
    """The request for a replay of `letters`. `filter` is the text that found them; `request_id` is new by default."""
    return PlanRequest(
        request_id=request_id or uuid4(),
        requested_by=requested_by,
        reason=reason,
        filter=filter,
        rate=pace.rate,
        canary=pace.canary_of(len(letters)),
        stop_after=pace.stop_after,
        edited_body=edited_body,
    )
