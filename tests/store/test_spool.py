"""The spool (DESIGN 1.3): what it acknowledged is on the disk, in order, once, whatever happens to file and process."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from relay.domain.delivery import Signature
from relay.errors import SpoolFull, SpoolUnwritable
from relay.store.spool import FILE_NAME
from relay.store.spool_file import Appended, Known
from tests.store.spooling import OTHER_DSN, Spools, ids, spooled


async def test_a_receipt_comes_back_whole(make_spool: Spools) -> None:
    item = spooled(
        "one", conversation="7", body=b"\xf0\x9f\x98\x80\0", encoded_body=b"\x1f\x8b",
        headers=(("x-chatwoot-delivery", "one"), ("x-odd", "\xff")), ignored=True,
        signature=Signature(UUID(int=5), 1_900_000_000),
    )  # fmt: skip
    assert await make_spool().append(item) == Appended("one")
    again = make_spool()
    (found,) = await again.page(most=10, most_bytes=1000)
    assert (found.claim, found.receipt, found.received_at, found.order_key) == (
        item.claim, item.receipt, item.received_at, "1/7",
    )  # fmt: skip
    await again.remove([found])
    assert await ids(again) == []


async def test_they_come_oldest_first_in_any_order_of_appending(make_spool: Spools) -> None:
    first, second = make_spool(), make_spool()
    await first.append(spooled("b", after_s=0.2))
    await second.append(spooled("a", after_s=0.1))
    await second.append(spooled("c", after_s=0.3))
    assert await ids(first) == await ids(second) == ["a", "b", "c"]
    await first.append(spooled("after the clock was set back", after_s=-3600))
    assert (await ids(first))[-1] == "after the clock was set back"
    assert [item.receipt.delivery_id for item in await first.page(most=2, most_bytes=1 << 20)] == ["a", "b"]
    assert [item.receipt.delivery_id for item in await first.page(most=9, most_bytes=1)] == ["a"]


async def test_what_is_left_out_hides_nothing_behind_it(make_spool: Spools) -> None:
    spool = make_spool()
    await asyncio.gather(*(spool.append(spooled(str(n), after_s=n, conversation=str(n % 2))) for n in range(9)))
    found = await spool.page(most=3, most_bytes=1 << 20, left_out=lambda item: item.order_key == "1/0")
    assert [item.receipt.delivery_id for item in found] == ["1", "3", "5"]


async def test_many_at_once_share_few_flushes_and_keep_their_order(make_spool: Spools) -> None:
    spool = make_spool()
    items = [spooled(str(number), after_s=number / 1000) for number in range(300)]
    await asyncio.gather(*(spool.append(item) for item in items))
    assert await ids(spool) == [str(number) for number in range(300)]
    assert (await spool.refresh()).receipts == 300


async def test_what_is_known_is_not_taken_twice(make_spool: Spools) -> None:
    spool = make_spool()
    first = spooled("one", signature=Signature(UUID(int=1), 1_900_000_000))
    await spool.append(first)
    assert await spool.append(first) == Appended("one"), "the same again, after an answer that was not seen"
    assert await spool.append(spooled("one", body=b'{"other": 1}')) == Known("one")
    assert await spool.append(spooled("two", signature=Signature(UUID(int=1), 1_900_000_000))) == Known("one")
    assert await spool.append(spooled("two", signature=Signature(UUID(int=2), 1_900_000_000))) == Appended("two")
    (found, _) = await spool.page(most=10, most_bytes=1 << 20)
    assert found.receipt == first.receipt


async def test_only_what_belongs_to_it_goes_there_while_postgres_is_up(make_spool: Spools) -> None:
    spool = make_spool()
    await spool.refresh()
    assert not spool.may_hold()
    await spool.append(spooled("one", conversation="7", signature=Signature(UUID(int=1), 1_900_000_000)))
    assert spool.may_hold()
    for item, expected in (
        (spooled("other", conversation="8"), None),
        (spooled("none"), None),
        (spooled("one"), Known("one")),
        (spooled("signed", signature=Signature(UUID(int=1), 1_900_000_000)), Known("one")),
        (spooled("two", conversation="7"), Appended("two")),
    ):
        assert await spool.append_if_held(item) == expected
    refused, _ = await spool.page(most=2, most_bytes=1 << 20)
    await spool.set_refused(refused, "22P05")
    assert await ids(spool) == ["two"]
    assert [item.refused for item in await spool.page(most=2, most_bytes=1 << 20, refused=True)] == ["22P05"]
    assert (await spool.refresh()).refused == 1


async def test_another_worker_sees_at_once_that_it_holds_something_and_that_it_is_empty(make_spool: Spools) -> None:
    first, second = make_spool(), make_spool()
    await asyncio.gather(first.refresh(), second.refresh())
    await first.append(spooled("one"))
    assert second.may_hold()
    await second.remove(await second.page(most=1, most_bytes=1 << 20))
    assert not first.may_hold()
    assert await first.try_lock()
    assert not await second.try_lock()
    await first.unlock()
    assert await second.try_lock()


async def test_it_takes_no_more_than_its_bytes(make_spool: Spools) -> None:
    spool = make_spool(max_bytes=20_000)
    with pytest.raises(SpoolFull, match="RELAY_SPOOL_MAX_BYTES=20000"):
        await spool.append(spooled(body=bytes(20_000)))
    await spool.append(spooled("one", body=bytes(12_000)))
    assert (await spool.refresh()).can_store
    with pytest.raises(SpoolFull):
        await spool.append(spooled("two", body=bytes(12_000)))
    state = await spool.refresh()
    assert (state.can_store, state.receipts, state.max_bytes) == (False, 1, 20_000)
    assert 12_000 < state.bytes < 13_000
    await spool.remove(await spool.page(most=1, most_bytes=1))
    assert (await spool.refresh()).can_store
    await spool.append(spooled("two", body=bytes(12_000)))


async def test_it_is_off_with_no_bytes(make_spool: Spools) -> None:
    spool = make_spool(max_bytes=0)
    with pytest.raises(SpoolUnwritable, match="RELAY_SPOOL_MAX_BYTES=0"):
        await spool.append(spooled())
    assert (spool.may_hold(), (await spool.refresh()).can_store) == (False, False)
    assert not make_spool.folder.exists()


async def test_only_its_owner_may_read_it(make_spool: Spools) -> None:
    await make_spool().append(spooled())
    modes = {path.name: path.stat().st_mode & 0o777 for path in make_spool.folder.iterdir()}
    assert set(modes.values()) == {0o600}, modes


async def test_receipts_of_one_database_do_not_go_to_another(make_spool: Spools) -> None:
    one, other = make_spool(), make_spool(dsn=OTHER_DSN)
    await one.append(spooled("one", conversation="7"))
    assert await ids(other) == []
    assert await other.append_if_held(spooled("two", conversation="7")) is None
    state = await other.refresh()
    assert (state.receipts, state.foreign) == (0, 1)
    assert other.may_hold()


async def test_a_database_that_moved_gets_what_was_kept_for_it(make_spool: Spools) -> None:
    one, moved = make_spool(), make_spool(dsn=OTHER_DSN)
    await one.append(spooled("before its name was known"))
    await one.name_target("the database")
    await one.append(spooled("after", after_s=1))
    await moved.name_target("the database")
    assert await ids(moved) == ["before its name was known", "after"]
    assert (await moved.refresh()).receipts == 2


async def test_a_person_can_be_erased(make_spool: Spools) -> None:
    spool = make_spool()
    for number in range(250):
        await spool.append(spooled(f"{number}", conversation=str(number % 2), body=f"body {number % 2}".encode()))
    assert await spool.erase(lambda receipt: receipt.conversation_id == "1", dry_run=True) == 125
    assert len(await ids(spool)) == 250
    assert await spool.erase(lambda receipt: receipt.conversation_id == "1") == 125
    assert len(await ids(spool)) == 125
    left = b"".join(path.read_bytes() for path in make_spool.folder.iterdir())
    assert (b"body 0" in left, b"body 1" in left) == (True, False)


async def test_an_emptied_spool_gives_its_space_back_and_keeps_no_text(make_spool: Spools) -> None:
    spool = make_spool(max_bytes=1 << 24)
    await asyncio.gather(*(spool.append(spooled(body=b"secret" * 20_000)) for _ in range(40)))
    await spool.remove(await spool.page(most=100, most_bytes=1 << 30))
    files = {path.name: path.read_bytes() for path in make_spool.folder.iterdir() if path.suffix != ".reserve"}
    assert sum(map(len, files.values())) < 300_000, {name: len(content) for name, content in files.items()}
    assert not any(b"secret" in content for content in files.values())


@pytest.mark.parametrize("gone", ["directory", "file", "state"])
async def test_what_was_removed_under_it_is_made_again_with_all_that_it_held(make_spool: Spools, gone: str) -> None:
    spool = make_spool()
    await spool.append(spooled("before"))
    for path in make_spool.folder.iterdir():
        if gone == "directory" or path.name.startswith(FILE_NAME if gone == "file" else "spool.state"):
            path.unlink()
    if gone == "directory":
        make_spool.folder.rmdir()
    await spool.append(spooled("after", after_s=1))
    fresh = make_spool()
    assert await ids(fresh) == ["before", "after"]
    assert spool.may_hold()
    assert fresh.may_hold()
    assert len(make_spool.said) == 1


async def test_a_directory_that_cannot_be_made_is_refused_until_it_can(make_spool: Spools) -> None:
    make_spool.folder.touch()
    spool = make_spool()
    with pytest.raises(SpoolUnwritable, match="The spool cannot be used: "):
        await spool.append(spooled())
    state = await spool.refresh()
    assert (state.can_store, "cannot be used" in (state.error or "")) == (False, True)
    make_spool.folder.unlink()
    assert (await spool.refresh()).can_store
    await spool.append(spooled("one"))
    assert await ids(spool) == ["one"]
