"""Lines that are committed after lines with higher ids: their ids are asked for again, within limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from console.data.log_gaps import Gaps


def test_skipped_ids_are_asked_for_until_they_come() -> None:
    gaps = Gaps().after_reading([4, 5, 8], after=2, now=0)
    assert gaps.ids == (3, 6, 7)
    assert gaps.after_reading([6], after=8, now=1).ids == (3, 7)


def test_an_id_that_does_not_come_within_ten_seconds_is_given_up() -> None:
    gaps = Gaps().after_reading([3], after=1, now=0).after_reading([5], after=3, now=6)
    assert gaps.ids == (2, 4)
    assert gaps.after_reading([], after=5, now=10.5).ids == (4,)


def test_of_a_very_long_gap_the_last_ids_are_asked_for() -> None:
    gaps = Gaps().after_reading([1_000_000_000], after=1, now=0)
    assert gaps.ids == tuple(range(1_000_000_000 - 2_000, 1_000_000_000))


@given(st.permutations(range(1, 30)), st.integers(1, 5))
def test_every_line_is_read_whatever_the_order_of_commits(order: list[int], a_read: int) -> None:
    gaps, held = Gaps(), [0]
    committed: set[int] = {0}
    for start in range(0, len(order), a_read):
        committed |= set(order[start : start + a_read])
        after = max(held)
        read = sorted(i for i in committed if i > after or i in gaps.ids)
        gaps = gaps.after_reading(read, after=after, now=0)
        held += read
    assert sorted(held) == list(range(30))
