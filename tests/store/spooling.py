"""Receipts to spool and spools to put them into, as the tests of the spool share them."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from relay.domain.delivery import Receipt
from relay.errors import SpoolError
from relay.store.spool import Spool
from relay.store.spooled import SpooledReceipt

if TYPE_CHECKING:
    from pathlib import Path

DSN = "postgresql://relay:secret@db/app"
OTHER_DSN = "postgresql://relay:secret@db/other"
AT = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def spooled(delivery_id: str = "", *, after_s: float = 0, conversation: str | None = None, **fields: Any) -> Any:
    """A receipt that was received `after_s` seconds after `AT`, in `conversation`."""
    receipt = Receipt(
        delivery_id=delivery_id or str(uuid4()),
        headers=fields.pop("headers", (("content-type", "application/json"),)),
        body=fields.pop("body", b'{"event": "message_created"}'),
        event="message_created",
        conversation_id=conversation,
        customer=True,
        test=False,
        **fields,
    )
    key = None if conversation is None else f"1/{conversation}"
    return SpooledReceipt(uuid4(), receipt, AT + timedelta(seconds=after_s), key)


async def remount(disk: Path, mode: str) -> None:
    """Make a disk read-only or writable."""
    await asyncio.to_thread(subprocess.run, ["mount", "-o", f"remount,{mode}", str(disk)], check=True)


async def fill(spool: Spool) -> list[str]:
    """Append until that fails; returns the delivery ids that it took."""
    taken: list[str] = []
    try:
        while True:
            number = len(taken)
            taken.append((await spool.append(spooled(str(number), after_s=number, body=bytes(30_000)))).delivery_id)
    except SpoolError:
        return taken


async def ids(spool: Spool) -> list[str]:
    """The delivery ids that it holds, in order."""
    return [item.receipt.delivery_id for item in await spool.page(most=10_000, most_bytes=1 << 30)]


class Spools:
    """Makes spools in one folder, and keeps what they said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self._made: list[Spool] = []

    def __call__(self, *, dsn: str = DSN, max_bytes: int = 1 << 20, folder: Path | None = None) -> Spool:
        self._made.append(Spool(folder or self.folder, dsn, max_bytes=max_bytes, say=self.said.append))
        return self._made[-1]

    async def close(self) -> None:
        for spool in self._made:
            await spool.close()
