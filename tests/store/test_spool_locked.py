"""The spool while another process is within a transaction that does not end, because it is stopped."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from relay.domain.delivery import Receipt
from relay.errors import SpoolUnwritable
from relay.store.spool_disk import BUSY_S
from relay.store.spool_file import Appended, SpoolFile
from relay.store.spooled import SpooledReceipt

if TYPE_CHECKING:
    from pathlib import Path

WEBHOOKS = 120


def receipt(name: str) -> SpooledReceipt:
    given = Receipt(name, (), b"{}", event=None, conversation_id=None, customer=False, test=False)
    return SpooledReceipt(uuid4(), given, datetime.now(UTC))


def test_only_the_first_webhook_waits_for_a_transaction_that_does_not_end(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with contextlib.closing(SpoolFile(path, max_bytes=1 << 20, address="address:a")) as file:
        file.append([receipt("before")])
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as stopped:
            stopped.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            for number in range(WEBHOOKS):
                with pytest.raises(SpoolUnwritable, match="locked"):
                    file.append([receipt(f"{number}")])
            assert time.monotonic() - began < WEBHOOKS * BUSY_S / 2
            assert [item.receipt.delivery_id for item in file.page(most=9, most_bytes=1 << 20)] == ["before"]
            stopped.execute("ROLLBACK")
        assert file.append([receipt("after")]) == [Appended("after")]
