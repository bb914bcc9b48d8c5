"""Large bodies share a budget: beyond it they wait, in order, and one of them always gets on."""

from __future__ import annotations

import asyncio

from relay.intake.body_budget import SMALL_BYTES, BodyBudget


async def test_beyond_the_budget_the_first_that_waits_gets_on_and_the_others_follow_when_there_is_room() -> None:
    budget, ended = BodyBudget(100), [asyncio.Event() for _ in range(3)]
    whole: list[int] = []

    async def receive(name: int) -> None:
        with budget.one() as share:
            for size in (40, 80, 120):
                if not share.take(SMALL_BYTES + size):
                    await share.wait(SMALL_BYTES + size)
                await asyncio.sleep(0)
            whole.append(name)
            await ended[name].wait()

    tasks = [asyncio.create_task(receive(name)) for name in range(3)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(whole) == 1, "one goes beyond the budget, the others wait"
    for _ in range(2):
        ended[whole[-1]].set()
        for _ in range(20):
            await asyncio.sleep(0)
    assert sorted(whole) == [0, 1, 2]
    ended[whole[-1]].set()
    await asyncio.gather(*tasks)
    with budget.one() as share:
        assert share.take(SMALL_BYTES + 100), "everything is free again"


async def test_small_bodies_never_wait_and_one_that_gives_up_waiting_keeps_no_room() -> None:
    budget = BodyBudget(10)
    with budget.one() as large, budget.one() as beyond, budget.one() as small:
        assert large.take(SMALL_BYTES + 10)
        assert not beyond.take(SMALL_BYTES + 1)
        await beyond.wait(SMALL_BYTES + 1)
        assert small.take(SMALL_BYTES)
        with budget.one() as impatient:
            waiting = asyncio.create_task(impatient.wait(SMALL_BYTES + 5))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait((waiting,))
    with budget.one() as last:
        assert last.take(SMALL_BYTES + 10)
