"""Lines of the log that come after later ones: their ids are asked for again, for a while, and not without end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from console.tail import Missing


def test_what_was_passed_over_is_asked_for_until_it_comes() -> None:
    missing = Missing()
    missing.look([4, 5, 8], after=2, now=0)
    assert missing.ids == (3, 6, 7)
    missing.look([6], after=8, now=1)
    assert missing.ids == (3, 7)


def test_what_does_not_come_within_ten_seconds_was_never_written() -> None:
    missing = Missing()
    missing.look([3], after=1, now=0)
    missing.look([5], after=3, now=6)
    assert missing.ids == (2, 4)
    missing.look([], after=5, now=10.5)
    assert missing.ids == (4,)


def test_a_gap_without_end_is_asked_for_from_its_end() -> None:
    missing = Missing()
    missing.look([1_000_000_000], after=1, now=0)
    assert missing.ids == tuple(range(1_000_000_000 - 2_000, 1_000_000_000))


@given(st.permutations(range(1, 30)), st.integers(1, 5))
def test_in_whatever_order_lines_are_committed_none_is_missed(order: list[int], a_look: int) -> None:
    missing, held = Missing(), [0]
    committed: set[int] = {0}
    for start in range(0, len(order), a_look):
        committed |= set(order[start : start + a_look])
        after = max(held)
        read = sorted(i for i in committed if i > after or i in missing.ids)
        missing.look(read, after=after, now=0)
        held += read
    assert sorted(held) == list(range(30))
