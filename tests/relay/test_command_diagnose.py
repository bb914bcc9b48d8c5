"""`relay diagnose`: on a live system with one thing wrong, the first line names it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from relay.chatwoot.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from tests.servers import Behaviour, free_port, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.agent import AgentStandIn
    from relay.demo.chatwoot import ChatwootStandIn
    from tests.conftest import CommandLine
    from tests.servers import Rows, RunningRelay

_LATER = (
    "UPDATE relay.deliveries SET finished_at = finished_at - make_interval(secs => %(seconds)s)",
    "UPDATE dashboard_facts SET recorded_at = recorded_at - make_interval(secs => %(seconds)s)",
)


def later(rows: Rows, seconds: float) -> None:
    """Let so much time have passed since all that was recorded."""
    for statement in _LATER:
        rows(statement, {"seconds": seconds})


BODY = b'{"event":"message_created","id":1}'


class Scene:
    """A relay, an agent and a Chatwoot; `diagnose` runs the command beside them."""

    def __init__(
        self, relay: RunningRelay, agent: AgentStandIn, chatwoot: ChatwootStandIn, command: CommandLine
    ) -> None:
        self.relay, self.agent, self.chatwoot = relay, agent, chatwoot
        self._command = command
        chatwoot.webhook_url = f"{relay.url}/api/webhooks/chatwoot"
        self.env = {
            "AGENT_SDK_URL": agent.url,
            "RELAY_URL": relay.url,
            "CHATWOOT_BASE_URL": chatwoot.url,
            "CHATWOOT_API_KEY": chatwoot.api_key,
            "CHATWOOT_ACCOUNT_ID": str(chatwoot.account_id),
        }

    async def post(self, count: int = 5) -> None:
        await asyncio.gather(*(self.relay.post({"event": "message_created", "id": n}) for n in range(count)))

    async def diagnose(self, **env: str) -> tuple[str, str, int]:
        """Its first line, all of it, and its exit status."""
        ended = await self._command.run("diagnose", **(self.env | env))
        return ended.stdout.splitlines()[0], ended.stdout, ended.returncode

    async def document(self) -> dict[str, Any]:
        ended = await self._command.run("diagnose", "--json", **self.env)
        document: dict[str, Any] = json.loads(ended.stdout)
        return document


@pytest.fixture
def scene(relay: RunningRelay, agent: AgentStandIn, chatwoot: ChatwootStandIn, relay_command: CommandLine) -> Scene:
    return Scene(relay, agent, chatwoot, relay_command)


async def test_where_all_is_well_it_says_so_and_exits_with_0(scene: Scene) -> None:
    await scene.post()
    first, text, status = await scene.diagnose()
    assert (first, status) == ("Nothing is failing. No dead letter waits.", 0)
    for title in (
        "Webhooks Not Received", "High Retry Rate", "Dead Letter Queue Growing", "Signature Verification Failing"
    ):  # fmt: skip
        assert f"{title} ─ ok" in text
    assert "Chatwoot has a webhook that points here" in text
    assert "resolves and takes connections" in text


@pytest.mark.parametrize(
    ("behaviour", "cause", "resolution"),
    [
        (Behaviour(status=503), "The Agent SDK answers 503: 5 of 5 failures", "Review its logs: agent-logs --tail"),
        (Behaviour(status=429), "The Agent SDK is rate limiting (429): 5 of 5", "reduce the webhooks' frequency"),
        (Behaviour(status=422), "Agent SDK refused the payload (422): 5 dead letters", "Identify the root cause"),
    ],
    ids=["503", "429", "422"],
)
async def test_what_the_agent_does_wrong_is_named_with_the_runbooks_resolution(
    scene: Scene, behaviour: Behaviour, cause: str, resolution: str
) -> None:
    scene.agent.behave(behaviour)
    await scene.post()
    first, text, status = await scene.diagnose(AGENT_SDK_LOGS="agent-logs --tail")
    assert re.fullmatch(r"Agent SDK .+ since [\d:]+ \(\d+s\)\. 5 of 5 open dead letters share this cause\.", first), (
        first
    )
    assert cause in text
    assert resolution in text
    assert status == 1


async def test_an_agent_that_refuses_connections_is_down(scene: Scene) -> None:
    await scene.agent.refuse()
    await scene.post()
    first, text, _ = await scene.diagnose()
    assert first.startswith("Agent SDK refused the connection since ")
    assert "The Agent SDK is down: it refuses connections (connection_refused): 5 of 5" in text
    assert "its /health fails too" in text
    assert "cannot be reached: connection refused" in text
    assert "ping 127.0.0.1" in text


async def test_dead_letters_whose_cause_is_gone_are_offered_for_replay(scene: Scene, rows: Rows) -> None:
    scene.agent.behave(Behaviour(status=503))
    await scene.post()
    scene.agent.behave()
    later(rows, 300)
    _, text, _ = await scene.diagnose()
    assert "is gone" not in text  # its /health was well all the while
    assert "relay replay --canary" not in text
    await scene.post(1)
    _, text, _ = await scene.diagnose()
    assert """relay replay --canary 1 --rate 20 --filter 'status:503 error:"Agent SDK answered 503"'""" in text
    chapters = {chapter["name"]: chapter for chapter in (await scene.document())["chapters"]}
    assert chapters["dead-letters-growing"]["replay"] == ['status:503 error:"Agent SDK answered 503"']


async def test_a_secret_that_the_relay_does_not_know_is_found_by_trying_it(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    agent: AgentStandIn, chatwoot: ChatwootStandIn, relay_command: CommandLine, rows: Rows,
) -> None:  # fmt: skip
    relay = await start_relay(chatwoot_webhook_secret="one")
    scene = Scene(relay, agent, chatwoot, relay_command)
    timestamp = str(int(time.time()))
    signed = {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: sign(b"another", timestamp, BODY)}
    for _ in range(3):
        assert (await relay.post(BODY, **{k.replace("-", "_"): v for k, v in signed.items()})).status_code == 401
    await until(lambda: len(rows.facts("support.webhook.rejected")) == 3)
    first, text, _ = await scene.diagnose(CHATWOOT_WEBHOOK_SECRET="one,another")
    assert first.startswith("3 webhooks refused (401, bad signature) since ")
    assert "Signatures fail: 3 webhooks were refused in the last hour (invalid_signature" in text
    assert "✓ secret 1 of 2: the running relay accepts what it signs" in text
    assert "✗ secret 2 of 2: the running relay answers 401" in text
    assert "fly secrets set CHATWOOT_WEBHOOK_SECRET" in text
    await until(lambda: len(rows.facts("support.webhook.rejected")) == 4)  # the try that was refused is one too
    assert rows("SELECT count(*) FROM relay.deliveries") == [0]


async def test_a_silence_is_explained_by_what_chatwoot_is_set_to(scene: Scene, rows: Rows) -> None:
    await scene.post()
    rows("UPDATE relay.deliveries SET received_at = now() - interval '40 minutes'")
    rows(
        "INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)"
        " SELECT 'support.webhook.retry', 'support',"
        """ '{"attempts": 1, "success": true, "durationMs": 5, "finalStatus": "200"}', '{}',"""
        " now() - n * interval '2 minutes' FROM generate_series(20, 700) AS n"
    )
    scene.chatwoot.webhook_url = "https://elsewhere.example/hook"
    first, text, _ = await scene.diagnose()
    assert first == "No webhook for 40m, though 29 an hour are usual."
    assert "No webhook for 40 min, though 29 an hour are usual: none of Chatwoot's webhooks points to" in text
    scene.chatwoot.webhook_url = "https://relay.example/api/webhooks/chatwoot"
    scene.chatwoot.subscriptions = ("conversation_status_changed",)
    _, text, _ = await scene.diagnose()
    assert ": Chatwoot's webhook does not send message_created." in text
    scene.chatwoot.subscriptions = ("message_created", "conversation_status_changed")
    scene.chatwoot.version = "4.13.0"
    _, text, _ = await scene.diagnose()
    assert "something between it and here is in the way" in text


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", None, "✓ Chatwoot has a webhook that points here"),
        ("localhost", None, "✓ Chatwoot has a webhook that points here"),
        ("127.0.0.1", 18801, "✗ none of Chatwoot's webhooks points to"),
        ("relay.example", 18801, "? Chatwoot has a webhook to http://relay.example:18801"),
        ("localhost", 80, "? Chatwoot has a webhook to http://localhost:80"),
    ],
    ids=["its address", "its address by name", "another port", "another host", "perhaps a proxy"],
)
async def test_a_webhook_points_here_if_it_names_a_relays_address(
    scene: Scene, host: str, port: int | None, said: str
) -> None:
    await scene.post(1)
    port = port or int(scene.relay.url.rpartition(":")[2])
    scene.chatwoot.webhook_url = f"http://{host}:{port}/api/webhooks/chatwoot"
    _, text, _ = await scene.diagnose()
    assert said in text


async def test_since_is_when_the_first_failed_though_it_was_replayed_meanwhile(scene: Scene, rows: Rows) -> None:
    scene.agent.behave(Behaviour(status=503))
    await scene.post(3)
    rows("UPDATE dashboard_facts SET recorded_at = recorded_at - interval '20 minutes'"
         " WHERE fact_type LIKE 'support.webhook.%'")  # fmt: skip
    rows("UPDATE relay.deliveries SET state = 'delivered'")
    await scene.post(2)
    first, text, _ = await scene.diagnose()
    began = rows.one("SELECT min(recorded_at) FROM dashboard_facts WHERE fact_type = 'support.webhook.retry'")
    day = "" if began.date() == datetime.now(UTC).date() else f"{began:%b %d} "
    assert f"The Agent SDK answers 503: 5 of 5 failures in the last hour, since {day}{began:%H:%M:%S}" in text
    assert f"{began:%H:%M:%S}" not in first  # that run of failures ended
    assert "2 × Agent SDK answered 503, died " in text


async def test_what_is_refused_weighs_as_much_as_of_it_failed_lately(scene: Scene, rows: Rows) -> None:
    scene.agent.behave(Behaviour(status=422))
    await scene.post(9)
    later(rows, 7_200)
    scene.agent.behave(Behaviour(status=503))
    await scene.post(3)
    first, text, _ = await scene.diagnose()
    assert first.startswith("Agent SDK answered 503 since ")
    assert "The Agent SDK answers 503: 3 of 3 failures" in text
    assert "12 dead letters wait; retrying will not help 9 of them." in text


async def test_without_any_relay_nothing_is_well(relay_command: CommandLine) -> None:
    ended = await relay_command.run("diagnose", RELAY_URL=f"http://127.0.0.1:{free_port()}")
    assert ended.stdout.startswith("No relay is running: no heartbeat was ever recorded. Webhooks are being lost.")
    assert "Webhooks Not Received ─ PROBLEM" in ended.stdout
    assert "1. Start a relay: relay serve" in ended.stdout
    assert ended.returncode == 1


async def test_a_relay_that_is_gone_is_the_first_thing_to_say(scene: Scene, rows: Rows) -> None:
    await scene.post()
    await scene.relay.stop()
    rows("UPDATE relay.instances SET heartbeat_at = now() - interval '11 minutes'")
    first, text, status = await scene.diagnose()
    assert first.startswith("No relay is running: the last heartbeat was 11m ago.")
    assert "1. Start a relay: relay serve" in text
    assert status == 1


async def test_what_chatwoot_refuses_is_reported_and_the_rest_is_checked(scene: Scene) -> None:
    await scene.post()
    first, text, status = await scene.diagnose(CHATWOOT_API_KEY="wrong")
    assert first == (
        "Chatwoot cannot be asked: Chatwoot answered 401: it does not know this key; check CHATWOOT_API_KEY."
    )
    assert "Webhooks Not Received ─ ok" in text
    assert status == 1


async def test_facts_that_dashboard_facts_refuses_are_named_with_reason_and_remedy(scene: Scene, rows: Rows) -> None:
    await asyncio.to_thread(rows, "ALTER TABLE dashboard_facts ADD CONSTRAINT ours CHECK (scope = 'app') NOT VALID")
    await scene.post()
    first, text, status = await scene.diagnose()
    assert first.endswith("facts refused by dashboard_facts wait aside, so the figures are too low.")
    assert "dashboard_facts does not take the relay's facts: a check constraint refuses them (23514" in text
    assert "constraint ours" in text
    assert "Drop the constraint, or let fact types that begin with 'support.' pass" in text
    assert status == 1
    chapter = (await scene.document())["chapters"][0]
    assert (chapter["name"], chapter["problem"]) == ("facts-refused", True)
