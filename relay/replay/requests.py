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
