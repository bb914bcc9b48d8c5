"""Only the cells that differ are painted."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Region

from console.render.changes import changed_regions


def test_the_cells_that_differ_are_found_a_region_a_line() -> None:
    styled = Content.assemble("a ", ("b", "bold"), " c")
    for before, after, expected in (
        (Content("age 4s, 12 dead"), Content("age 4s, 12 dead"), []),
        (Content("age 4s, 12 dead"), Content("age 5s, 12 dead"), [Region(4, 0, 1, 1)]),
        (Content("age 4s, 12 dead"), Content("age 5s, 13 dead"), [Region(4, 0, 6, 1)]),
        (Content("one\nage 4s\nthree"), Content("one\nage 5s\nthree"), [Region(4, 1, 1, 1)]),
        (Content("9s"), Content("10s"), [Region(0, 0, 3, 1)]),
        (Content("10s ago"), Content("9s"), [Region(0, 0, 7, 1)]),
        (styled, Content.assemble("a ", ("b", "red"), " c"), [Region(2, 0, 1, 1)]),
        (Content("日本 4s"), Content("日本 5s"), [Region(5, 0, 1, 1)]),
        (Content("one"), Content("one\ntwo"), None),
        (Content("short"), Content("longer than twenty cells"), None),
    ):
        assert changed_regions(before, after, 20) == expected, (before.plain, after.plain)
