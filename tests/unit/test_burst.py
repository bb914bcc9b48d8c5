"""A burst of events is logged as its first and a count."""

from __future__ import annotations

from typing import Any

from relay.telemetry.burst import PAUSE_S, Burst


def test_the_first_is_logged_at_once_and_those_that_follow_as_one_line_each_pause() -> None:
    lines: list[dict[str, Any]] = []
    now = 0.0
    burst = Burst(lambda **fields: lines.append(fields), clock=lambda: now)
    burst.flush()
    for number in range(100):
        burst.add(n=number)
    burst.flush()
    assert lines == [{"n": 0}]
    now = PAUSE_S
    burst.flush()
    burst.flush()
    assert lines[1:] == [{"n": 99, "count": 99}]
    burst.add(n=100)
    now = 2 * PAUSE_S - 1.0
    burst.flush()
    assert lines[2:] == []
    burst.flush(at_once=True)
    assert lines[2:] == [{"n": 100}]
    now = 4 * PAUSE_S
    burst.add(n=101)
    assert lines[3:] == [{"n": 101}]
