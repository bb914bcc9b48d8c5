"""One check of `relay fsck`, and the SQL that several of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.sql import SQL

if TYPE_CHECKING:
    from psycopg.sql import Composed


@dataclass(frozen=True, slots=True)
class Check:
    """`count` counts what is wrong; `wrong` says what is so of each; `repair` runs in one
    transaction (empty: cannot be).

    A repair may do a part: it is run again for as long as it leaves less.
    """

    name: str
    count: SQL | Composed
    wrong: str
    repair: tuple[SQL | Composed, ...] = ()


def differing(true: SQL | Composed, kept: SQL | Composed) -> SQL | Composed:
    """Counts the rows of one query that the other lacks, both ways."""
    statement = "SELECT count(*) FROM (({true} EXCEPT {kept}) UNION ({kept} EXCEPT {true})) AS differing"
    return SQL(statement).format(true=SQL("({})").format(true), kept=SQL("({})").format(kept))
