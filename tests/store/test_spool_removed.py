"""The spool's file removed or replaced while it is used: what it held is in the new one."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from relay.domain.delivery import Receipt
from relay.store.spool_file import Appended, SpoolFile
from relay.store.spooled import SpooledReceipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTS = ("spool.db", "spool.db-wal", "spool.db-shm", "spool.state")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], SpoolFile]]:
    """Opens the spool in the folder `data`, as one more process."""
    files: list[SpoolFile] = []

    def make() -> SpoolFile:
        files.append(SpoolFile(tmp_path / "data" / "spool.db", max_bytes=1 << 20, address="address:a"))
        return files[-1]

    yield make
    for file in files:
        file.close()


def append(file: SpoolFile, name: str) -> None:
    receipt = Receipt(name, (), b"{}", event=None, conversation_id=None, customer=False, test=False)
    assert file.append([SpooledReceipt(uuid4(), receipt, datetime.now(UTC))]) == [Appended(name)]


def names(file: SpoolFile) -> list[str]:
    return [item.receipt.delivery_id for item in file.page(most=100, most_bytes=1 << 20)]


def test_what_a_removed_file_held_is_still_for_the_database_that_named_itself(
    opened: Callable[[], SpoolFile], tmp_path: Path
) -> None:
    file, started = opened(), opened()
    file.name_target("its name")
    append(file, "one")
    shutil.rmtree(tmp_path / "data")
    append(started, "two")  # a relay that does not know the name yet
    append(file, "three")
    assert names(file) == names(started) == ["one", "two", "three"]
    assert file.state().foreign == 0


def test_each_process_copies_what_it_held_whichever_part_was_removed(
    opened: Callable[[], SpoolFile], tmp_path: Path
) -> None:
    one, other = opened(), opened()
    kept: list[str] = []
    for part in PARTS:
        for file, name in ((one, f"one {part}"), (other, f"other {part}")):
            append(file, name)
            kept.append(name)
        (tmp_path / "data" / part).unlink()
        append(one, f"after {part}")
        kept.append(f"after {part}")
    assert set(names(one)) == set(names(other)) == set(kept)


def test_closing_copies_what_a_removed_file_held(opened: Callable[[], SpoolFile], tmp_path: Path) -> None:
    file = opened()
    append(file, "one")
    shutil.rmtree(tmp_path / "data")
    file.close()
    assert names(opened()) == ["one"]
