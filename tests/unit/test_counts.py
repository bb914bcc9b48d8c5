"""Counts in shared memory: the sum of what was added, for every reader and any next writer."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from relay.telemetry.counts import PART_BYTES, Counts, parts, read
from relay.telemetry.metrics import Counters

NAMES = st.text(max_size=20)
STEPS = st.lists(st.tuples(NAMES, st.integers(0, 1000), st.booleans()), max_size=50)


@given(STEPS)
def test_a_reader_has_what_was_added(steps: list[tuple[str, int, bool]]) -> None:
    part, expected = memoryview(bytearray(PART_BYTES)), Counter()
    counts = Counts(part)
    for name, amount, restarts in steps:
        counts = Counts(part) if restarts else counts  # the worker is replaced
        counts.add(name, amount)
        expected[name] += amount
        assert read(part)[name] == counts[name] == expected[name]
    assert read(part) == expected


def test_a_count_without_room_changes_no_other() -> None:
    part = memoryview(bytearray(64))
    counts = Counts(part)
    for name in ("first", "x" * 100, "second", "third"):
        counts.add(name)
    assert read(part) == {"first": 1, "second": 1}
    assert counts["third"] == 0


def test_every_worker_answers_for_all() -> None:
    memory = memoryview(bytearray(3 * PART_BYTES))
    first, second = Counters(memory, 0), Counters(memory, 2)
    first.received += 2
    second.received += 5
    second.rejected["not_an_object"] += 1
    assert first.of_all_workers() == second.of_all_workers()
    assert {slot: counts["received"] for slot, counts in first.of_all_workers().items()} == {0: 2, 2: 5}
    assert len(parts(memory)) == 3
    assert Counters(memory, 2).received == 5, "a worker that replaces another continues where it ended"
