"""Slots: never more than the limit, in the order in which they were asked for."""

from __future__ import annotations

import asyncio

from relay.forwarding.concurrency import Slots


async def test_slots_are_passed_on_in_order_and_never_exceed_the_limit() -> None:
    slots, got = Slots(2), []

    async def use(name: int) -> None:
        await slots.acquire()
        got.append(name)

    slots.take()
    tasks = [asyncio.create_task(use(n)) for n in range(4)]
    await asyncio.sleep(0)
    assert (got, slots.used, slots.free) == ([0], 2, 0)
    tasks[1].cancel()
    slots.release()
    await asyncio.wait((tasks[2],))
    assert (got, slots.used) == ([0, 2], 2)
    slots.limit_agent(1)
    slots.release()
    await asyncio.sleep(0)
    assert (got, slots.used) == ([0, 2], 1)
    slots.limit_agent(None)
    await asyncio.wait((tasks[3],))
    assert (got, slots.used) == ([0, 2, 3], 2)


async def test_a_slot_that_was_passed_on_to_a_task_that_is_cancelled_is_free_again() -> None:
    slots = Slots(1)
    slots.take()
    waiting = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    slots.release()
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert slots.free == 1
