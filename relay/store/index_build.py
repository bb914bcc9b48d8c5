"""How a migration step builds an index beside writers: on a table, or on each partition of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.store.database import Connection

_BUILT = re.compile(r"CREATE INDEX CONCURRENTLY IF NOT EXISTS (\w+) ON ([\w.]+)")
_TABLE = """
    SELECT format('%%I.%%I', n.nspname, c.relname), c.relkind = 'p'
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
"""
_PARTITIONS = """
    SELECT c.oid::int8, format('%%I.%%I', n.nspname, c.relname)
      FROM pg_partition_tree(to_regclass(%s)) p JOIN pg_class c ON c.oid = p.relid
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.isleaf AND c.relkind = 'r'
"""


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """A step that builds an index on `table`, whose name has its schema: a lent session has its own search path."""

    before: str
    index: str
    after: str
    table: str
    is_partitioned: bool
    partitions: list[tuple[int, str]]

    @property
    def whole(self) -> tuple[str, str]:
        """The index and the table that the step names."""
        return self.index, self.table

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The indexes and tables that can be built beside writers: those of the partitions, else the whole."""
        if self.is_partitioned:
            return [(f"{self.index}_{oid}", name) for oid, name in self.partitions]
        return [self.whole]

    def statement(self, index: str, table: str) -> str:
        """The step's statement for an index of that name on `table`."""
        return f"{self.before}{index} ON {table}{self.after}"


async def index_build(connection: Connection, name: str, statement: str) -> IndexBuild:
    """The build of the index that `statement` of the step `name` makes, for the table as it is in this database."""
    built = _BUILT.search(statement)
    assert built is not None, f"{name} builds no index: let it run in a transaction"
    row = await (await connection.execute(_TABLE, (built[2],))).fetchone()
    table, is_partitioned = row or (built[2], False)
    partitions = await (await connection.execute(_PARTITIONS, (built[2],))).fetchall() if is_partitioned else []
    return IndexBuild(
        statement[: built.start(1)], built[1], statement[built.end(2) :], table, is_partitioned, list(partitions)
    )
