"""The drain of a backlog leaves live traffic its time: its share follows the delays that live webhooks have."""

from __future__ import annotations

from relay.forwarding.drain_limit import FIRST, LEAST, DrainLimit

_STEP_S = 0.1


class _Drain:
    """A drain that uses all the room it gets; `pass_steps` lets time pass, with one webhook stored in each step."""

    def __init__(self, *, usual_s: float | None = 0.004) -> None:
        self.now = 0.0
        self.limit = DrainLimit(lambda: self.now)
        if usual_s is not None:
            for _ in range(128):
                self.limit.committed(usual_s)

    def start(self) -> int:
        started = self.limit.room()
        self.limit.in_progress += started
        return started

    def pass_steps(self, number: int, *, stored_s: float | None) -> int:
        for _ in range(number):
            self.start()
            self.start()  # there is no more room: the limit is reached
            if stored_s is not None:
                self.limit.committed(stored_s)
            self.now += _STEP_S + 0.001
            self.limit.room()
        return self.limit.limit


def test_the_limit_follows_the_delays_of_live_webhooks() -> None:
    assert _Drain().pass_steps(3, stored_s=0.005) > FIRST  # less than one and a half times the usual
    assert _Drain().pass_steps(3, stored_s=0.007) < FIRST
    assert _Drain(usual_s=0.001).pass_steps(3, stored_s=0.004) > FIRST  # 4 ms are no delay
    assert _Drain(usual_s=0.050).pass_steps(3, stored_s=0.060) > FIRST  # a machine that is slow in any case
    assert _Drain(usual_s=None).pass_steps(3, stored_s=0.029) > FIRST
    assert _Drain(usual_s=None).pass_steps(3, stored_s=0.031) < FIRST
    assert _Drain().pass_steps(100, stored_s=1.0) == LEAST
    assert _Drain().pass_steps(200, stored_s=None) > 2_000  # no live traffic, and an agent that is slow


def test_two_outliers_do_not_become_the_usual_time() -> None:
    drain = _Drain()
    for seconds in (1.0, 2.0):
        drain.limit.committed(seconds)
    assert drain.limit.delay_s == 0.006


def test_the_limit_grows_carefully_for_thirty_seconds_after_a_delay() -> None:
    drain = _Drain()
    drain.pass_steps(40, stored_s=None)
    shrunk = drain.pass_steps(1, stored_s=0.1)
    careful = drain.pass_steps(100, stored_s=0.004)
    assert 1.3 * shrunk < careful < 1.9 * shrunk  # by 0.5 % ten times a second
    drain.now += 30
    assert drain.pass_steps(80, stored_s=0.004) > 5 * careful


def test_the_limit_stays_where_one_commit_in_four_hundred_is_delayed() -> None:
    for rate in (1, 10):  # commits in each step
        drain = _Drain()
        drain.pass_steps(60, stored_s=None)
        began = drain.limit.limit
        for step in range(1_000):
            for _ in range(rate - 1):
                drain.limit.committed(0.004)
            drain.pass_steps(1, stored_s=0.1 if step % (400 // rate) == 0 else 0.004)
        assert began / 3 < drain.limit.limit


def test_a_loop_that_is_late_counts_as_a_delay() -> None:
    drain = _Drain()
    drain.limit.delayed(0.5)
    assert drain.pass_steps(3, stored_s=None) < FIRST


def test_a_limit_that_is_not_reached_does_not_grow() -> None:
    drain = _Drain()
    for _ in range(100):
        drain.now += 1
        drain.limit.room()
    assert drain.limit.limit == FIRST


def test_several_start_at_once_or_none() -> None:
    drain = _Drain()
    assert drain.start() == FIRST
    drain.limit.in_progress -= 3
    assert drain.start() == 0
    drain.limit.in_progress -= 1
    assert drain.start() == 4


def test_what_is_stored_beside_the_drain_does_not_become_the_usual_time() -> None:
    drain = _Drain()
    drain.pass_steps(100, stored_s=1.0)
    assert drain.limit.delay_s == 0.006
