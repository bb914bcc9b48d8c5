"""Alerts while Postgres is away: raised and sent from memory, recorded when it is back, and cleared."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from relay.domain.notifications import Origin
from relay.errors import StoreUnavailable
from relay.incident.situation import SituationReader
from relay.intake.rejections import RejectionRecorder, Rejections
from relay.monitoring.alert_notifier import AlertNotifier
from relay.monitoring.outside_heartbeat import OutsideHeartbeat
from relay.monitoring.store_outage import StoreOutage
from relay.settings import AGENT_PATH
from relay.store.database import Database
from relay.telemetry.forwarding_log import ForwardingLog
from relay.telemetry.log_sink import RELAY_SCOPE, LogSink
from relay.telemetry.metrics import Counters
from tests.servers import free_port, relay_settings, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers import AgentStandIn, Rows
    from tests.store.plant import Plant

AWAY = f"postgresql://127.0.0.1:{free_port()}/none"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """One relay's notifier, that loses its database and finds it again."""

    def __init__(self, dsn: str, agent: AgentStandIn) -> None:
        self.clock, self.counters, self.log = Clock(), Counters(), io.StringIO()
        self.sink = LogSink(stream=self.log, level="debug")
        self.there, self.away = Database(dsn), Database(AWAY)
        self.outage = StoreOutage(self.counters, clock=self.clock)
        self.agent = agent
        self.notifier = AlertNotifier(
            relay_settings(agent, relay_alert_webhook_url=agent.url + AGENT_PATH), self.there, uuid4(),
            self.sink.logger(RELAY_SCOPE), reader=SituationReader(), outage=self.outage,
            origin=Origin("prod", "db@host"),
        )  # fmt: skip
        self.rejections = Rejections(self.counters, ForwardingLog(self.sink, "http://agent"))

    @property
    def messages(self) -> list[list[str]]:
        return [json.loads(request.body)["text"].splitlines() for request in self.agent.seen]

    async def round(self, *, away: bool, after_s: float = 5) -> None:
        self.clock.now += after_s
        self.notifier._database = self.away if away else self.there
        if away:
            with pytest.raises(StoreUnavailable):
                await self.notifier.run_once()
        else:
            await self.notifier.run_once()


@pytest.fixture
async def scene(dsn: str, agent: AgentStandIn) -> AsyncIterator[Scene]:
    made = Scene(dsn, agent)
    await made.there.open()
    await made.away.open()
    yield made
    await made.there.close()
    await made.away.close()
    made.sink.close()


async def test_an_outage_of_postgres_is_notified_at_once_and_recorded_afterwards(scene: Scene, rows: Rows) -> None:
    await scene.round(away=False)
    for _ in range(8):
        scene.rejections.add("not_stored", 503)
    await scene.round(away=True)
    assert [lines[1].partition(":")[0] for lines in scene.messages] == ["P0 raised on prod", "P1 raised on prod"]
    assert scene.messages[0][0].endswith("8 webhooks refused so far (503); they are lost.")
    assert "database db@host" in scene.messages[0][2]
    assert scene.messages[0][3] == "next: relay diagnose"
    await scene.round(away=True, after_s=61)
    await scene.round(away=True)
    assert [lines[1].rpartition("rule ")[2] for lines in scene.messages] == [
        "refused-p0)",
        "lost-p1)",
        "store-down-p0)",
    ]

    recorder = RejectionRecorder(scene.there, scene.rejections)
    scene.rejections.put_back(scene.rejections.take())
    scene.rejections.put_back(scene.rejections.take())
    await until(lambda: "not_stored" in scene.log.getvalue())
    assert scene.log.getvalue().count("not_stored") == 8  # a fact that is kept for later is not logged again
    await recorder.run_once()
    await scene.round(away=False)
    ((value, metadata),) = rows.facts("support.webhook.rejected")
    assert (value, metadata["test"]) == ({"reason": "not_stored", "status": 503, "count": 8}, False)
    raised = [value["rule"] for value, _ in rows.facts("support.alert") if value["state"] == "raised"]
    assert sorted(raised) == ["lost-p1", "refused-p0", "store-down-p0"]
    assert len(scene.messages) == 3

    rows("UPDATE relay.alerts SET held_at = held_at - interval '61 s' WHERE rule = 'store-down-p0'")
    await scene.round(away=False)
    assert scene.messages[-1][1].startswith("P0 cleared after ")
    assert "store-down-p0" in scene.messages[-1][1]


async def test_a_relay_that_comes_back_to_postgres_does_not_take_itself_for_dead(
    scene: Scene, rows: Rows, plant: Plant
) -> None:
    plant.relay()
    rows("UPDATE relay.instances SET id = %s", (scene.notifier._owner,))
    await scene.round(away=False)
    await scene.round(away=True)
    rows("UPDATE relay.instances SET heartbeat_at = now() - interval '2 min', lease_until = now() - interval '1 min'")
    await scene.round(away=False)
    assert scene.messages == []
    assert rows("SELECT lease_until < now() AND heartbeat_at > now() - interval '1 min' FROM relay.instances") == [True]


async def test_a_relay_without_the_duty_says_nothing(scene: Scene, rows: Rows) -> None:
    rows("INSERT INTO relay.duties (name, owner, until) VALUES ('alerts', gen_random_uuid(), now() + interval '1 h')")
    await scene.round(away=False)
    await scene.round(away=True)
    await scene.round(away=True, after_s=61)
    assert scene.messages == []


async def test_what_was_raised_without_postgres_is_left_to_the_relay_that_has_the_duty_afterwards(
    scene: Scene, rows: Rows
) -> None:
    await scene.round(away=False)
    await scene.round(away=True)
    await scene.round(away=True, after_s=61)
    rows("UPDATE relay.duties SET owner = gen_random_uuid(), until = now() + interval '1 h' WHERE name = 'alerts'")
    for _ in range(2):
        await scene.round(away=False)
    assert rows("SELECT rule FROM relay.alerts") == ["store-down-p0"]
    rows("UPDATE relay.alerts SET held_at = held_at - interval '61 s'")
    rows("DELETE FROM relay.duties")
    await scene.round(away=False)
    assert [lines[1].split()[:2] for lines in scene.messages] == [["P0", "raised"], ["P0", "cleared"]]
    assert [value["state"] for value, _ in rows.facts("support.alert")] == ["raised", "cleared"]


async def test_an_outage_before_the_start_is_notified_too(scene: Scene, rows: Rows) -> None:
    scene.notifier._database = scene.away
    await scene.notifier.run_before_start()
    scene.clock.now += 61
    await scene.notifier.run_before_start()
    assert [lines[1].rpartition("rule ")[2] for lines in scene.messages] == ["store-down-p0)"]
    scene.notifier._database = scene.there
    await scene.notifier.run_before_start()
    await scene.round(away=False)
    assert rows("SELECT rule FROM relay.alerts") == ["store-down-p0"]  # so that its end is sent too


async def test_what_a_channel_does_not_accept_is_sent_again(scene: Scene) -> None:
    await scene.round(away=False)
    await scene.round(away=True)
    await scene.agent.refuse()
    await scene.round(away=True, after_s=61)
    await scene.agent.start()
    await scene.round(away=True)
    assert [lines[1].rpartition("rule ")[2] for lines in scene.messages] == ["store-down-p0)"]


@pytest.mark.parametrize(
    ("away", "can_spool", "fault", "fetched"),
    [(False, False, None, 1), (True, False, None, 0), (True, True, None, 1), (False, False, "disk full", 0)],
)
async def test_the_outside_heartbeat_beats_while_webhooks_can_be_stored(
    scene: Scene, away: bool, can_spool: bool, fault: str | None, fetched: int
) -> None:
    async def store_fault() -> str | None:
        return fault

    beat = OutsideHeartbeat(
        f"http://127.0.0.1:{free_port()}/ping/secret", scene.away if away else scene.there,
        scene.sink.logger(RELAY_SCOPE),
        can_spool=lambda: can_spool, store_fault=store_fault,
    )  # fmt: skip
    await beat.run_once()
    scene.sink.close()
    log = scene.log.getvalue()
    assert (log.count("Heartbeat not sent"), log.count("Heartbeat failed")) == (1 - fetched, fetched)
    assert "secret" not in log
