"""An operator as the tests need one: freezes dead letters into replay plans, steers them, watches them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import psycopg

from relay.store import replays
from relay.store.database import connection_parameters
from relay.store.filters import of_deliveries
from relay.store.replays import Control, Plan, PlanRequest, PlanState
from tests.servers import until

if TYPE_CHECKING:
    from types import TracebackType

    from relay.store.database import Connection

NAME = "maria"


class Operator:
    """Works on the database at `dsn` as the console does, through a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.connection: Connection

    async def __aenter__(self) -> Self:
        parameters = connection_parameters(self._dsn, "tests")
        self.connection = await psycopg.AsyncConnection.connect(autocommit=True, **parameters)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.close()

    async def ask(self, *delivery_ids: str, **request: Any) -> int:
        """Freeze these dead letters, in this order, and ask for their replay; the plan's id."""
        matching = await replays.matching(self.connection, of_deliveries(delivery_ids))
        letters = {letter.delivery_id: letter for letter in matching}
        frozen = [letters[delivery_id] for delivery_id in delivery_ids]
        return await replays.ask(self.connection, PlanRequest(uuid4(), NAME, **request), frozen)

    async def steer(self, plan_id: int, control: Control) -> None:
        """Pause, resume or stop it."""
        await replays.control(self.connection, plan_id, control, operator=NAME)

    async def plan(self, plan_id: int) -> Plan:
        """The plan as it is now."""
        plan = await replays.plan(self.connection, plan_id)
        assert plan is not None
        return plan

    async def reaches(self, plan_id: int, state: PlanState) -> Plan:
        """The plan once it is in `state`."""

        async def is_there() -> Plan | None:
            plan = await self.plan(plan_id)
            assert plan.state is state or not plan.ended, f"{plan.state} instead of {state}: {plan.stopped_why}"
            return plan if plan.state is state else None

        found: Plan = await until(is_there, what=f"replay {plan_id} is {state}")
        return found

    async def settles(self, plan_id: int, at_least: int) -> Plan:
        """The plan once so many of its deliveries are delivered or dead again."""

        async def has_settled() -> Plan | None:
            plan = await self.plan(plan_id)
            return plan if plan.delivered + plan.dead >= at_least else None

        found: Plan = await until(has_settled, what=f"{at_least} deliveries of replay {plan_id} are settled")
        return found
