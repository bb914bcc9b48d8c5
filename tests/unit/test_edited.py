"""The difference that an edit made, and the time that it takes to say so."""

from __future__ import annotations

import pytest

from console.screens.editor import _diff
from tests.servers import AT_ONCE_S


def numbered(lines: int) -> list[str]:
    return [f"line {n}" for n in range(1, lines + 1)]


def test_two_lines_around_a_change_are_shown_under_their_numbers() -> None:
    before = numbered(100)
    after = [*before[:49], "mended", *before[50:]]
    assert _diff("\n".join(before), "\n".join(after)).plain.split("\n") == [
        "@@ -48,5 +48,5 @@", " line 48", " line 49", "-line 50", "+mended", " line 51", " line 52",
    ]  # fmt: skip


def test_what_was_taken_away_or_added_at_an_end_is_shown() -> None:
    before = numbered(4)
    assert _diff("\n".join(before), "\n".join(before[:3])).plain.split("\n")[1:] == [" line 2", " line 3", "-line 4"]
    assert _diff("\n".join(before[1:]), "\n".join(before)).plain.split("\n")[1:] == ["+line 1", " line 2", " line 3"]
    assert _diff("a\na", "a\na\na").plain.split("\n")[1:] == [" a", " a", "+a"]


@pytest.mark.timeout(AT_ONCE_S)
def test_one_change_in_many_megabytes_is_shown_at_once() -> None:
    before = numbered(400_000)
    after = [*before[:200_000], "mended", *before[200_001:]]
    assert "+mended" in _diff("\n".join(before), "\n".join(after)).plain


@pytest.mark.timeout(AT_ONCE_S)
def test_of_very_many_changes_the_first_are_shown_and_what_is_left_out_is_said() -> None:
    before = numbered(100_000)
    shown = _diff("\n".join(before), "\n".join(f"other {line}" for line in before)).plain
    assert "-line 1\n" in shown
    assert "… 1,501 more lines of differences not shown" in shown
    assert "… 99,000 more lines, some of which differ, are not compared" in shown
