"""The alert notifier on a real Postgres: what it raises, holds, clears, and sends to a real HTTP server (DESIGN, 7)."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import pytest_asyncio

from relay.domain.notifications import Origin
from relay.errors import Refused
from relay.incident.situation import SituationReader
from relay.monitoring.alert_notifier import AlertNotifier
from relay.monitoring.store_outage import StoreOutage
from relay.settings import AGENT_PATH
from relay.store import alerts, overview
from relay.store.database import Database
from relay.telemetry.log_sink import RELAY_SCOPE, LogSink
from relay.telemetry.metrics import Counters
from tests.servers import Behaviour, relay_settings, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from relay.store.overview import Overview
    from tests.servers import AgentStandIn, Rows
    from tests.store.plant import Plant

ALERT = "support.alert"
_LET_A_MINUTE_PASS = "UPDATE relay.alerts SET held_at = held_at - interval '61 s', since = since - interval '61 s'"
_DUE_NOW = "UPDATE relay.notices SET due_at = now() WHERE sent_at IS NULL"


@pytest_asyncio.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    opened = Database(dsn)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def log() -> AsyncIterator[io.StringIO]:
    yield io.StringIO()


@pytest_asyncio.fixture
async def notifier(
    database: Database, agent: AgentStandIn, log: io.StringIO
) -> AsyncIterator[Callable[..., AlertNotifier]]:
    """Makes alert notifiers that post to `agent`, which takes the place of the chat room."""
    sink = LogSink(stream=log, level="debug")

    def make(**settings: Any) -> AlertNotifier:
        given = {"relay_alert_webhook_url": agent.url + AGENT_PATH} | settings
        return AlertNotifier(
            relay_settings(agent, **given), database, uuid4(), sink.logger(RELAY_SCOPE),
            reader=SituationReader(), outage=StoreOutage(Counters()), origin=Origin("prod", "db@host"),
        )  # fmt: skip

    yield make
    sink.close()


async def state_of(database: Database) -> Overview:
    async with database.connection() as connection:
        return await overview.read(connection)


def notifications(agent: AgentStandIn) -> list[str]:
    """What was said below the headline."""
    texts = [json.loads(request.body)["text"] for request in agent.seen if request.status == 200]
    return [text.partition("\n")[2] for text in texts]


def transitions(rows: Rows) -> list[tuple[str, str]]:
    return [(value["rule"], value["state"]) for value, _ in rows.facts(ALERT)]


async def test_an_alert_is_raised_once_and_recorded_with_value_and_threshold(
    notifier: Callable[..., AlertNotifier], plant: Plant, rows: Rows
) -> None:
    plant.dead_letters(6)
    one = notifier()
    await one.run_once()
    await one.run_once()
    ((value, metadata),) = rows.facts(ALERT)
    assert value == {
        "rule": "dlq-warning", "severity": "Warning", "state": "raised", "value": 6, "threshold": 5
    }  # fmt: skip
    assert metadata["since"].endswith("Z")


async def test_the_overview_says_since_when_an_alert_is_active(
    notifier: Callable[..., AlertNotifier], plant: Plant, rows: Rows, database: Database
) -> None:
    plant.dead_letters(6)
    await notifier().run_once()
    (firing,) = (await state_of(database)).firing
    assert firing.since == rows.one("SELECT since FROM relay.alerts")


async def test_an_alert_at_the_edge_does_not_flap(
    notifier: Callable[..., AlertNotifier], plant: Plant, rows: Rows, database: Database
) -> None:
    plant.dead_letters(6)
    one = notifier()
    await one.run_once()
    rows("DELETE FROM dashboard_facts WHERE fact_type = 'support.webhook.dead_letter'")
    await one.run_once()
    assert [verdict.rule.name for verdict in (await state_of(database)).firing] == ["dlq-warning"]
    plant.dead_letters(6)
    await one.run_once()
    assert transitions(rows) == [("dlq-warning", "raised")]


async def test_an_alert_whose_condition_has_not_held_for_a_minute_is_cleared(
    notifier: Callable[..., AlertNotifier], plant: Plant, rows: Rows, database: Database
) -> None:
    plant.dead_letters(6)
    one = notifier()
    await one.run_once()
    rows("DELETE FROM dashboard_facts WHERE fact_type = 'support.webhook.dead_letter'")
    rows(_LET_A_MINUTE_PASS)
    await one.run_once()
    assert transitions(rows) == [("dlq-warning", "raised"), ("dlq-warning", "cleared")]
    assert (await state_of(database)).firing == []


async def test_one_relay_at_a_time_evaluates_the_rules(
    notifier: Callable[..., AlertNotifier], plant: Plant, rows: Rows
) -> None:
    first, second = notifier(), notifier()
    await first.run_once()
    plant.dead_letters(6)
    await second.run_once()
    assert transitions(rows) == []
    await first.run_once()
    assert transitions(rows) == [("dlq-warning", "raised")]


async def test_notifiers_that_take_turns_at_the_same_moment_raise_an_alert_once(
    notifier: Callable[..., AlertNotifier], plant: Plant, rows: Rows
) -> None:
    plant.dead_letters(6)
    for _ in range(3):
        rows("DELETE FROM relay.duties")
        await asyncio.gather(*(notifier().run_once() for _ in range(4)))
    assert transitions(rows) == [("dlq-warning", "raised")]


async def test_only_the_configured_severities_are_notified(
    notifier: Callable[..., AlertNotifier], plant: Plant, agent: AgentStandIn, rows: Rows
) -> None:
    plant.runs(delivered=1, failed=9, age_s=560)
    plant.dead_letters(9)
    await notifier().run_once()
    assert {rule for rule, _ in transitions(rows)} == {"success-rate-p0", "success-rate-critical", "dlq-warning"}
    one = notifier()
    rows("DELETE FROM relay.duties")
    await one.run_once()
    assert sorted(text.split(" raised")[0] for text in notifications(agent)) == ["Critical", "P0"]
    assert notifications(agent)[0].startswith(
        "P0 raised on prod: success rate < 50 % for 10 min (rule success-rate-p0)\n"
    )
    assert "\nnow 10 %, threshold 50 %, since " in notifications(agent)[0]


async def test_other_severities_can_be_asked_for(
    notifier: Callable[..., AlertNotifier], plant: Plant, agent: AgentStandIn
) -> None:
    plant.dead_letters(6)
    await notifier(relay_alert_severities="warning, P2").run_once()
    assert [text.split(" on ")[0] for text in notifications(agent)] == ["Warning raised"]


async def test_a_notification_says_what_fails_without_what_the_agent_said(
    notifier: Callable[..., AlertNotifier], plant: Plant, agent: AgentStandIn
) -> None:
    plant.relay()
    plant.delivery(last_error="Agent SDK answered 503: a customer's words", final_status="503")
    plant.dead_letters(30)
    await notifier().run_once()
    texts = [json.loads(request.body)["text"] for request in agent.seen]
    assert texts
    assert "Agent SDK answered 503" in texts[0]
    assert not any("a customer's words" in text for text in texts)


async def test_without_an_address_nothing_is_sent(
    notifier: Callable[..., AlertNotifier], plant: Plant, agent: AgentStandIn, rows: Rows
) -> None:
    plant.dead_letters(30)
    await notifier(relay_alert_webhook_url=None).run_once()
    assert ("escalate-dlq", "raised") in transitions(rows)
    assert rows("SELECT text FROM relay.notices") == []
    assert not agent.seen


async def test_a_notice_that_does_not_arrive_is_posted_again_later(
    notifier: Callable[..., AlertNotifier], plant: Plant, agent: AgentStandIn, rows: Rows
) -> None:
    agent.behave(Behaviour(status=503, times=1))
    plant.dead_letters(30)
    one = notifier()
    await one.run_once()
    await one.run_once()
    assert [request.status for request in agent.seen] == [503]
    rows(_DUE_NOW)
    await one.run_once()
    await one.run_once()
    assert [text.split(" on ")[0] for text in notifications(agent)] == ["escalate raised"]
    assert rows("SELECT text FROM relay.notices WHERE sent_at IS NULL") == []


async def test_a_notice_outlives_the_relay_that_could_not_send_it(
    notifier: Callable[..., AlertNotifier], plant: Plant, agent: AgentStandIn, rows: Rows
) -> None:
    await agent.refuse()
    plant.dead_letters(30)
    await notifier().run_once()
    await agent.start()
    rows(_DUE_NOW)
    rows("DELETE FROM relay.duties")
    await notifier().run_once()
    assert [text.split(" on ")[0] for text in notifications(agent)] == ["escalate raised"]


async def test_the_address_is_in_no_log(
    notifier: Callable[..., AlertNotifier], plant: Plant, agent: AgentStandIn, log: io.StringIO
) -> None:
    agent.behave(Behaviour(status=500))
    plant.dead_letters(30)
    await notifier().run_once()
    await until(lambda: "Alert notification failed, will retry" in log.getvalue())
    assert agent.url.removeprefix("http://") not in log.getvalue()


async def test_refused_facts_are_an_alert_that_arrives_though_the_alerts_own_fact_is_refused(
    notifier: Callable[..., AlertNotifier], plant: Plant, rows: Rows, agent: AgentStandIn
) -> None:
    plant.fact_aside(refused=True)
    rows("ALTER TABLE dashboard_facts ADD CONSTRAINT none CHECK (false) NOT VALID")
    one = notifier()
    await one.run_once()
    assert [text for text in notifications(agent) if "facts-aside-p1" in text] != []
    assert rows("SELECT value ->> 'rule' FROM relay.facts_aside WHERE fact_type = %s", (ALERT,)) == ["facts-aside-p1"]
    rows("ALTER TABLE dashboard_facts DROP CONSTRAINT none")
    rows("DELETE FROM relay.facts_aside")
    rows(_LET_A_MINUTE_PASS)
    await one.run_once()
    assert any("cleared" in text and "facts-aside-p1" in text for text in notifications(agent))


async def test_an_acknowledged_alert_stays_visible_and_is_not_sent_again(
    notifier: Callable[..., AlertNotifier], plant: Plant, rows: Rows, agent: AgentStandIn, database: Database
) -> None:
    plant.dead_letters(30)
    one = notifier()
    await one.run_once()
    async with database.connection() as connection:
        with pytest.raises(Refused, match="needs a reason"):
            await alerts.acknowledge(connection, "maria", "escalate-dlq", " ", 60)
        with pytest.raises(Refused, match="31 days at most"):
            await alerts.acknowledge(connection, "maria", "escalate-dlq", "why", 0)
        until = await alerts.acknowledge(connection, "maria", "escalate-dlq", "the agent is being deployed", 1_800)
    note = next(v.acknowledged for v in (await state_of(database)).firing if v.rule.name == "escalate-dlq")
    assert note is not None
    assert (note.who, note.reason, note.until) == (
        "maria (login: postgres)", "the agent is being deployed", until,
    )  # fmt: skip
    assert rows(
        "SELECT operator, reason, details ->> 'rule' FROM relay.operator_actions WHERE action = 'acknowledge'"
    ) == [("maria", "the agent is being deployed", "escalate-dlq")]
    for fires in (False, True):
        rows("UPDATE dashboard_facts SET recorded_at = now() - %s * interval '2 hours'", (int(not fires),))
        rows(_LET_A_MINUTE_PASS)
        await one.run_once()
    assert [text.split(" on ")[0].split(" after")[0] for text in notifications(agent)] == [
        "escalate raised",
        "escalate cleared",
    ]
    rows("UPDATE relay.acknowledgements SET until = now()")
    rows("UPDATE dashboard_facts SET recorded_at = now() - interval '2 hours' WHERE fact_type <> 'support.alert'")
    rows(_LET_A_MINUTE_PASS)
    await one.run_once()
    rows("UPDATE dashboard_facts SET recorded_at = now()")
    await one.run_once()
    assert notifications(agent)[-1].startswith("escalate raised on prod")
