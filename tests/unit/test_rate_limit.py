"""A rate is met by all relays together, small or large, whenever each of them comes to read it."""

from __future__ import annotations

import random

from relay.forwarding.rate_limit import RateLimit

_SECONDS = 30.0
_TOLERANCE = 0.1


def starts(rate: float, *, relays: int, stall_s: float = 0.0, seed: int = 1) -> int:
    """How many deliveries start in `_SECONDS` while more wait than may start; each relay is late by up to `stall_s`."""
    chance = random.Random(seed)
    turns = [0.0] * relays
    next_at, started = 0.0, 0
    while (now := min(turns)) < _SECONDS:
        limit = RateLimit(rate, now - next_at, catching_up=now > 0)
        started += limit.allowed
        limit = limit.after(limit.allowed)
        next_at = now - limit.since_s
        turns[turns.index(now)] = now + max(0.02, limit.due_s) + chance.uniform(0, stall_s)
    return started


def test_a_rate_is_met_within_a_tenth() -> None:
    off = {
        (rate, relays, stall_s): number
        for rate in (0.5, 1, 3, 10, 40, 250, 1_000)
        for relays in (1, 2, 5)
        for stall_s in (0.0, 0.05, 0.2)
        if abs((number := starts(rate, relays=relays, stall_s=stall_s)) - rate * _SECONDS)
        > max(1, _TOLERANCE * rate * _SECONDS)
    }
    assert off == {}


def test_what_was_saved_up_while_nothing_waited_is_a_tenth_of_a_second_or_one() -> None:
    assert {rate: RateLimit(rate, 3_600).allowed for rate in (0.1, 1, 9, 40, 1_000)} == {
        0.1: 1, 1: 1, 9: 1, 40: 4, 1_000: 100,
    }  # fmt: skip


def test_a_reserve_is_left_to_others_and_comes_on_top() -> None:
    idle = RateLimit(10, 3_600, reserve=1)
    assert (idle.allowed, idle.after(1).allowed) == (1, 0)
    assert RateLimit(10, idle.after(1).since_s).allowed == 1
    assert round(idle.after(1).due_s, 3) == 0.1
