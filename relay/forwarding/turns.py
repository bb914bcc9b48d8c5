"""Turns: how many deliveries of the backlog, or of a replay, may start now at the rates that all relays share."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from relay.forwarding.rate_limit import RateLimit
from relay.store import rates
from relay.store.rates import Levels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.forwarding.gate import Gate
    from relay.store.database import Connection


_PAUSE_S = 0.02
"""The least pause between two turns of which the rates limit the first."""

_LOCKED_PAUSE_S = 0.25
"""The pause after a turn that met a row which another session holds."""


@dataclass(slots=True)
class Turn:
    """`allowed` deliveries may start now. The block sets how many `started`; the next is then due in `due_s`."""

    allowed: int
    started: int = 0
    due_s: float = 0.0


@asynccontextmanager
async def turn(
    connection: Connection, gate: Gate, most: int, *, reserve: int = 0, catching_up: bool = False
) -> AsyncIterator[Turn]:
    """Up to `most` starts, as the rates allow. What the block claims and what that is charged commit together.

    `reserve` starts are left to others. While `catching_up`, what a delayed round missed is made up for. Nothing starts
    in a turn that needs a row which another session holds; the block may end early then.
    """
    given = gate.rates
    if not given:
        yield Turn(most)
        return
    made: Turn | None = None
    try:
        async with connection.transaction():
            owed = gate.owed
            levels = await rates.lock(connection, given)
            limits = {
                scope: RateLimit(rate, levels.since_s[scope], reserve, catching_up).after(owed)
                for scope, rate in given.items()
            }
            made = Turn(min(most, *(limit.allowed for limit in limits.values())))
            yield made
            limits = {scope: limit.after(made.started) for scope, limit in limits.items()}
            if owed + made.started:
                since_s = {scope: limit.since_s for scope, limit in limits.items()}
                await rates.charge(connection, given, Levels(levels.at, since_s))
    except psycopg.errors.LockNotAvailable:
        if made is None:
            yield Turn(0, due_s=_LOCKED_PAUSE_S)
        else:
            made.allowed, made.started, made.due_s = 0, 0, _LOCKED_PAUSE_S
        return
    made.due_s = max(_PAUSE_S, *(limit.due_s for limit in limits.values()))
    gate.settle(owed, min(RateLimit(limit.rate, limit.since_s).allowed for limit in limits.values()))
