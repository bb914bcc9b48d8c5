"""The spool (DESIGN 1.3) on disks that are full, read-only, busy or damaged, and in processes that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from relay.errors import SpoolError
from relay.store.spool import FILE_NAME
from tests.postgres import small_disk
from tests.servers import PATIENCE_S, ROOT, until
from tests.store.spooling import Spools, fill, ids, remount, spooled

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_read_only_disk_is_refused(make_spool: Spools, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=4) as disk:
        spool = make_spool(folder=disk)
        await spool.append(spooled("before"))
        await spool.close()
        await remount(disk, "ro")
        with pytest.raises(SpoolError):
            await spool.append(spooled("refused"))
        assert not (await spool.refresh(probe=True)).can_store
        await spool.close()
        await remount(disk, "rw")
        assert (await spool.refresh()).can_store
        assert await ids(spool) == ["before"]
        await spool.close()


async def test_a_full_disk_is_refused_until_there_is_space(make_spool: Spools, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=4) as disk:
        spool = make_spool(folder=disk, max_bytes=1 << 30)
        taken = await fill(spool)
        assert not (await spool.refresh()).can_store
        assert await ids(spool) == taken
        assert len(taken) > 3
        await spool.remove(await spool.page(most=len(taken) - 1, most_bytes=1 << 30))
        assert (await spool.refresh()).can_store
        await spool.append(spooled("after", after_s=1000))
        assert await ids(spool) == [taken[-1], "after"]
        await spool.close()


@pytest.mark.parametrize("damage", ["start", "middle"])
async def test_a_damaged_file_is_moved_aside_and_said(make_spool: Spools, damage: str) -> None:
    spool = make_spool()
    await asyncio.gather(*(spool.append(spooled(body=bytes(3000))) for _ in range(20)))
    await spool.close()
    path = make_spool.folder / FILE_NAME
    content = bytearray(path.read_bytes())
    start = 0 if damage == "start" else 4096
    content[start : start + 20_000] = b"\xa5" * 20_000
    path.write_bytes(content)
    spool = make_spool()
    assert (await spool.refresh()).receipts == 0
    await spool.append(spooled("after"))
    state = await spool.refresh()
    assert (state.receipts, len(state.aside), state.can_store) == (1, 1, True)
    assert (make_spool.folder / state.aside[0]).read_bytes() == bytes(content)
    (said,) = make_spool.said
    assert state.aside[0] in said


_APPENDER = """
import asyncio, sys
from pathlib import Path
from relay.store.spool import Spool
from tests.store.spooling import DSN, spooled

async def main(name):
    spool = Spool(Path(sys.argv[1]), DSN, max_bytes=1 << 30)
    async def one(number):
        while True:
            item = spooled()
            await spool.append(item)
            print(item.receipt.delivery_id, flush=True)
    await asyncio.gather(*map(one, range(8)))

asyncio.run(main(sys.argv[1]))
"""


def _append_and_be_killed(folder: Path) -> list[str]:
    """Runs `_APPENDER`; returns the lines that it wrote until it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", _APPENDER, str(folder)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(60)]
        process.send_signal(signal.SIGKILL)
        return lines + process.communicate(timeout=PATIENCE_S)[0].splitlines(keepends=True)


async def test_what_two_processes_acknowledged_is_there_after_both_were_killed(make_spool: Spools) -> None:
    appended = await asyncio.gather(*(asyncio.to_thread(_append_and_be_killed, make_spool.folder) for _ in range(2)))
    acknowledged = {line.strip() for lines in appended for line in lines if line.endswith("\n")}
    spool = make_spool()
    found = await ids(spool)
    assert len(found) == len(set(found))
    assert acknowledged <= set(found)
    state = await spool.refresh()
    assert (state.receipts, spool.may_hold()) == (len(found), True)


_LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from relay.errors import SpoolError
from relay.store.spool import Spool
from tests.store.spooling import DSN, ids, spooled

async def main():
    spool = Spool(Path(sys.argv[1]), DSN, max_bytes=1 << 30)
    await spool.append(spooled("before"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    taken = 0
    try:
        while True:
            await spool.append(spooled(body=bytes(50_000)))
            taken += 1
    except SpoolError as error:
        print(type(error).__name__, taken, len(await ids(spool)) - 1)

asyncio.run(main())
"""


async def test_a_write_that_fails_acknowledges_nothing(make_spool: Spools) -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _LIMITED, str(make_spool.folder)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip
    name, taken, kept = ended.stdout.split() if ended.stdout else (ended.stderr[-500:], "", "-")
    assert (name.startswith("Spool"), taken) == (True, kept), ended.stderr
    assert int(taken) > 1


async def test_a_busy_disk_does_not_delay_the_loop(make_spool: Spools) -> None:
    slow, done = make_spool(), asyncio.Event()
    await slow.refresh()
    posting = [asyncio.create_task(slow.append(spooled(body=bytes(200_000)))) for _ in range(4)]
    for task in posting:
        task.add_done_callback(lambda _: done.set())
    rounds = 0

    def turn() -> bool:
        nonlocal rounds
        rounds += 1
        return done.is_set()

    await until(turn, every_s=0)
    await asyncio.gather(*posting)
    assert rounds > 1
