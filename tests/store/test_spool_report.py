"""The spool's state in Postgres is what the spool holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.forwarding.spool_drain import SpoolReporter
from relay.store.database import Database
from relay.store.spool import FILE_NAME, Spool
from tests.store.spooling import DSN, spooled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Rows


async def test_a_spool_that_is_drained_just_after_its_report_is_reported_empty(
    tmp_path: Path, dsn: str, rows: Rows
) -> None:
    database = Database(dsn)
    await database.open()
    spool = Spool(tmp_path / FILE_NAME, DSN, max_bytes=1_000_000)
    try:
        await spool.append(spooled("d-1"))
        reporter = SpoolReporter(spool, database)
        await reporter.run_once()
        assert rows("SELECT receipts FROM relay.spools") == [1]
        await spool.remove(await spool.page(most=10, most_bytes=1 << 20))
        await spool.settle()
        assert not spool.may_hold()
        await reporter.run_once()
        assert rows("SELECT receipts FROM relay.spools") == [0]
    finally:
        await spool.close()
        await database.close()
