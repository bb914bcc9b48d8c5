"""What the spool holds and does: appends receipts, gives them back in order, removes and erases them. Blocking.

`relay.store.spool` calls this from its thread; `relay.store.spool_disk` keeps the file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.errors import SpoolFull
from relay.store import spool_schema as sql
from relay.store.spool_disk import SpoolDisk
from relay.store.spooled import decoded, encoded, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from relay.domain.delivery import Receipt
    from relay.store.spooled import SpooledReceipt

_ROW_BYTES = 256
_FREE_PAGES = 64
_PROBE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Appended:
    """A receipt that is durable in the spool."""

    delivery_id: str


@dataclass(frozen=True, slots=True)
class Known:
    """A webhook whose delivery id or signature is in the spool already: that of `delivery_id`."""

    delivery_id: str


AppendResult = Appended | Known | SpoolFull


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What the spool holds.

    `id` names the file. `receipts` are those for this relay's database, `refused` of them those that it refuses, and
    `foreign` those for another one. `bytes` are all of them, of `max_bytes`. `oldest_at` is when the oldest of
    `receipts` was received. `error` is why the spool takes none now. `aside` are the names of damaged files that were
    moved aside with what they held.
    """

    id: str = ""
    receipts: int = 0
    bytes: int = 0
    max_bytes: int = 0
    foreign: int = 0
    refused: int = 0
    oldest_at: datetime | None = None
    error: str | None = None
    aside: tuple[str, ...] = ()

    @property
    def can_store(self) -> bool:
        """True if the next receipt is likely to be taken."""
        return self.error is None and self.bytes < self.max_bytes


class SpoolFile:
    """One process's access to the file at `path`. Belongs to one thread, except `may_hold`.

    `address` names the database that receipts are for until its own name is known (`name_target`). `say` is called
    with one sentence when a file is damaged, or was removed or replaced.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, address: str, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._disk = SpoolDisk(path, say=say)
        self._max_bytes = max_bytes
        self._address = address

    def may_hold(self) -> bool:
        """False if no receipt is in the spool. Reads one byte, from memory. Any thread may call it."""
        return self._disk.may_hold()

    def append(self, items: Sequence[SpooledReceipt]) -> list[AppendResult]:
        """Make `items` durable in one transaction. Returns one result an item, in order.

        Where the disk has no room for all of them, each is tried by itself.

        Raises:
            SpoolUnwritable: the file cannot be written.
        """
        try:
            return self._disk.write(lambda db: [self._append_one(db, item) for item in items])
        except SpoolFull as error:
            if len(items) == 1:
                return [error]
            return [result for item in items for result in self.append([item])]

    def append_if_held(self, item: SpooledReceipt) -> AppendResult | None:
        """Append `item` if the spool has its delivery id, its signature or receipts of its conversation; else None.

        Raises:
            SpoolUnwritable: the file cannot be written.
        """
        keys = encoded(item)
        if not self._disk.run(lambda db: db.execute(sql.HELD, keys | self._target(db)).fetchone()[0]):
            return None
        return self.append([item])[0]

    def page(
        self,
        *,
        most: int,
        most_bytes: int,
        refused: bool = False,
        left_out: Callable[[SpooledReceipt], bool] = lambda _: False,
    ) -> list[SpooledReceipt]:
        """The oldest receipts, in order: up to `most`, and no more than `most_bytes` unless the first is larger.

        With `refused` those that Postgres refuses, else all others; without those that are `left_out`.
        """

        def read(db: sqlite3.Connection) -> list[SpooledReceipt]:
            found: list[SpooledReceipt] = []
            weight = 0
            for row in db.execute(sql.PAGE, {"refused": refused} | self._target(db)):
                item = decoded(row)
                if left_out(item):
                    continue
                weight += item.receipt.size
                if found and (weight > most_bytes or len(found) == most):
                    break
                found.append(item)
            return found

        return self._disk.run(read)

    def remove(self, items: Sequence[SpooledReceipt]) -> None:
        """Remove receipts, on a disk that is full as well, and give its space back once none is left."""
        keys = [(item.seq, str(item.claim)) for item in items]
        self._disk.write_in_need(lambda db: db.executemany(sql.REMOVE, keys))
        self.settle()

    def set_refused(self, item: SpooledReceipt, reason: str) -> None:
        """Mark a receipt that Postgres refuses, for `reason`, so that it delays no other one."""
        self._disk.write(lambda db: db.execute(sql.SET_REFUSED, (reason, item.seq, str(item.claim))))

    def erase(self, wanted: Callable[[Receipt], bool], *, dry_run: bool = False) -> int:
        """Remove every receipt that is `wanted`, and its bytes from the disk. Returns how many there are."""
        found: list[SpooledReceipt] = []
        after = {"seq": 0}
        while page := self._disk.run(
            lambda db: [decoded(row) for row in db.execute(sql.AFTER, after | self._target(db))]
        ):
            found += [item for item in page if wanted(item.receipt)]
            after["seq"] = page[-1].seq
        if found and not dry_run:
            self.remove(found)
            self._disk.run(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
        return len(found)

    def name_target(self, name: str) -> None:
        """Record how the database at this relay's address names itself. What was appended before is for it, too."""
        names = {"address": self._address, "name": name}

        def rename(db: sqlite3.Connection) -> None:
            for statement in sql.NAMING:
                db.execute(statement, names)

        if self._disk.run(self._target)["target"] != name:
            self._disk.write(rename)

    def state(self) -> SpoolState:
        """What the spool holds now."""

        def read(db: sqlite3.Connection) -> dict[str, Any]:
            cursor = db.execute(sql.STATE, self._target(db))
            return dict(zip((column[0] for column in cursor.description), cursor.fetchone(), strict=True))

        row = self._disk.run(read)
        oldest = row.pop("oldest")
        oldest_at = None if oldest is None else moment(oldest)
        return SpoolState(**row, max_bytes=self._max_bytes, oldest_at=oldest_at, aside=self._disk.aside())

    def probe(self) -> None:
        """Write and remove a few pages.

        Raises:
            SpoolError: it fails.
        """
        self._disk.write(lambda db: db.execute("INSERT INTO probe VALUES (zeroblob(?))", (_PROBE_BYTES,)))
        self._disk.write(lambda db: db.execute("DELETE FROM probe"))

    def settle(self) -> None:
        """If no receipt is left, let every relay know and give the disk's space back."""

        def clear(db: sqlite3.Connection) -> bool:
            is_empty = bool(db.execute(sql.IS_EMPTY).fetchone()[0])
            if is_empty:
                self._disk.set_flag(holds=False)
            return is_empty

        if self._disk.write(clear):
            self._disk.run(_give_back)

    def try_lock(self) -> bool:
        """Take the lock that one process of the host at a time holds while it drains. False if another one has it."""
        return self._disk.try_lock()

    def unlock(self) -> None:
        """Release the lock."""
        self._disk.unlock()

    def close(self) -> None:
        """Close the file."""
        self._disk.close()

    def _target(self, db: sqlite3.Connection) -> dict[str, Any]:
        """The database that receipts are for, as a parameter. Another relay may have named it meanwhile."""
        found = db.execute(sql.TARGET, (self._address,)).fetchone()
        return {"target": self._address if found is None else found[0]}

    def _append_one(self, db: sqlite3.Connection, item: SpooledReceipt) -> AppendResult:
        row = encoded(item)
        row |= self._target(db) | {"size": item.receipt.size + len(row["fields"]) + _ROW_BYTES}
        known = db.execute(sql.KNOWN, row).fetchone()
        if known is not None:
            return Appended(known[1]) if known[0] == row["claim"] else Known(known[1])
        held = db.execute(sql.BYTES).fetchone()[0]
        if held + row["size"] > self._max_bytes:
            return SpoolFull(f"The spool is full (RELAY_SPOOL_MAX_BYTES={self._max_bytes})", held)
        db.execute(sql.APPEND, row)
        return Appended(item.receipt.delivery_id)


def _give_back(db: sqlite3.Connection) -> None:
    if db.execute("PRAGMA freelist_count").fetchone()[0] < _FREE_PAGES:
        return
    with contextlib.suppress(sqlite3.OperationalError):  # busy: the relay that empties the file next does it
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
