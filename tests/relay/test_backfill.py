"""`relay backfill`: what Chatwoot has and no webhook brought is found, shown, and delivered once."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from relay.chatwoot.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from relay.demo.chatwoot.records import ACTIVITY, OUTGOING, TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.conftest import CommandLine
    from tests.servers import HeldAgent, Rows, RunningRelay

    StartRelay = Callable[..., Awaitable[RunningRelay]]

NOW = int(time.time())
SINCE = NOW - 3_600


def stamp(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@pytest.fixture
def env(chatwoot: ChatwootStandIn) -> dict[str, str]:
    """What the command reads from the environment."""
    return {
        "CHATWOOT_BASE_URL": chatwoot.url, "CHATWOOT_API_KEY": chatwoot.agent_key, "CHATWOOT_ACCOUNT_ID": "1",
    }  # fmt: skip


async def deliver(relay: RunningRelay, chatwoot: ChatwootStandIn, message: dict[str, Any]) -> None:
    chatwoot.webhook_url = f"{relay.url}/api/webhooks/chatwoot"
    (sent,) = await chatwoot.deliver(message)
    assert sent.status == 200


def received(agent: HeldAgent) -> list[int]:
    return sorted(json.loads(seen.body)["id"] for seen in agent.seen)


@pytest.mark.slow
async def test_after_the_relay_was_down_exactly_what_is_missing_is_delivered(
    start_relay: StartRelay, agent: HeldAgent, chatwoot: ChatwootStandIn, relay_command: CommandLine,
    env: dict[str, str], rows: Rows,
) -> None:  # fmt: skip
    relay = await start_relay(chatwoot_webhook_secret=chatwoot.secret.decode())
    came, missed = [], []
    for number in range(120):  # over several pages of conversations; every third message came
        conversation = 1_000 + number % 60
        message = chatwoot.add_message(conversation, f"message {number}", created_at=SINCE + 10 * number)
        if number % 3 == 0:
            await deliver(relay, chatwoot, message)
            came.append(message["id"])
        else:
            missed.append(message["id"])
    missed += [  # one long conversation, further back than one answer reaches
        chatwoot.add_message(77, f"long {number}", created_at=SINCE + 20 * number)["id"] for number in range(30)
    ]
    chatwoot.add_message(78, "too early", created_at=SINCE - 1)
    chatwoot.add_message(78, "too late", created_at=NOW - 5)
    for kind, private in ((ACTIVITY, False), (TEMPLATE, False), (OUTGOING, True)):
        chatwoot.add_message(77, "no customer's", message_type=kind, private=private, created_at=SINCE + 700)
    window = ("--since", stamp(SINCE), "--until", stamp(NOW - 60))
    shown = await relay_command.run("backfill", *window, "--dry-run", **env)
    assert shown.returncode == 0, shown.stderr
    assert f"150 messages of customers in 61 conversations, {len(missed)} of them never came here" in shown.stdout
    assert f"{len(missed)} to send\n" in shown.stdout
    assert "Dry run: nothing was sent." in shown.stdout
    assert "message 1" not in shown.stdout
    assert received(agent) == sorted(came)
    assert rows("SELECT count(*) FROM relay.deliveries WHERE state = 'dead'") == [0]
    unasked = await relay_command.run("backfill", *window, **env)
    assert (unasked.returncode, "Add --yes" in unasked.stderr) == (2, True)
    ended = await relay_command.run("backfill", *window, "--yes", **env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert received(agent) == sorted(came + missed)
    again = await relay_command.run("backfill", *window, "--yes", **env)
    assert (again.returncode, "Nothing is missing." in again.stdout) == (0, True)
    assert len(agent.seen) == len(came) + len(missed)
    assert rows("SELECT reason FROM relay.replay_plans")[0].startswith("backfill ")
    assert rows.facts("support.webhook.dead_letter") == []


async def test_a_synthesised_webhook_reads_like_chatwoots_own(
    start_relay: StartRelay, agent: HeldAgent, chatwoot: ChatwootStandIn, relay_command: CommandLine,
    env: dict[str, str],
) -> None:  # fmt: skip
    secret = chatwoot.secret.decode()
    relay = await start_relay(chatwoot_webhook_secret=secret)
    sound = [{"id": 5, "file_type": "audio", "data_url": "https://chatwoot/x", "file_size": 9_000}]
    message = chatwoot.add_message(7, None, attachments=sound, created_at=SINCE + 5)
    ended = await relay_command.run("backfill", "--since", stamp(SINCE), "--yes", "--json", **env)
    document = json.loads(ended.stdout)
    name = f"backfill-1-{message['id']}"
    assert (document["missing"], document["deliveries"], document["delivered"]) == (1, [name], 1)
    (seen,) = agent.seen
    assert (seen.delivery_id, seen.headers["x-relay-origin"]) == (name, "backfill")
    stamped = seen.headers[TIMESTAMP_HEADER]
    assert seen.headers[SIGNATURE_HEADER] == sign(secret.encode(), stamped, seen.body)
    payload, own = json.loads(seen.body), chatwoot.payload_of(message)
    for key in ("id", "content", "message_type", "private", "attachments", "created_at", "sender", "event"):
        assert payload[key] == own[key], key
    assert payload["account"]["id"] == 1
    assert payload["conversation"]["id"] == 7
    spoofed = await relay.post(b"{}", x_relay_origin="backfill")
    assert spoofed.status_code == 401


async def test_what_was_answered_by_now_is_left_out_unless_asked_for(
    start_relay: StartRelay, agent: HeldAgent, chatwoot: ChatwootStandIn, relay_command: CommandLine,
    env: dict[str, str],
) -> None:  # fmt: skip
    await start_relay()
    answered = chatwoot.add_message(7, "where?", created_at=SINCE + 1)["id"]
    chatwoot.add_message(7, "there", message_type=OUTGOING, created_at=SINCE + 2)
    open_ones = [chatwoot.add_message(7, "thanks, and when?", created_at=SINCE + 3)["id"]]
    open_ones.append(chatwoot.add_message(8, "anybody?", created_at=SINCE + 4)["id"])
    chatwoot.add_message(8, "a note", message_type=OUTGOING, private=True, created_at=SINCE + 5)
    chatwoot.add_message(8, "We are away", message_type=TEMPLATE, created_at=SINCE + 5)
    rule = {"automation_rule_id": 3}
    chatwoot.add_message(8, "by a rule", message_type=OUTGOING, content_attributes=rule, created_at=SINCE + 6)
    bot = {"id": 1, "name": "Bot", "type": "agent_bot"}
    chatwoot.add_message(8, "I am a bot", message_type=OUTGOING, sender=bot, created_at=SINCE + 7)
    gone = {"deleted": True}
    chatwoot.add_message(8, "deleted", message_type=OUTGOING, content_attributes=gone, created_at=SINCE + 8)
    given = ("backfill", "--since", stamp(SINCE), "--yes")
    ended = await relay_command.run(*given, **env)
    line = "3 to send, of which 1 is answered by now (left out unless you say so: --include-answered)"
    assert line in ended.stdout
    assert received(agent) == open_ones
    ended = await relay_command.run(*given, "--include-answered", **env)
    assert ended.returncode == 0, ended.stderr
    assert received(agent) == [answered, *open_ones]


async def test_a_replay_plan_reads_chatwoot_too(
    start_relay: StartRelay, agent: HeldAgent, chatwoot: ChatwootStandIn, relay_command: CommandLine,
    env: dict[str, str], rows: Rows,
) -> None:  # fmt: skip
    relay = await start_relay(chatwoot_webhook_max_attempts=1)
    letters = [chatwoot.add_message(number, "where is it?") for number in (7, 10, 11)]
    await asyncio.gather(*(relay.post(chatwoot.payload_of(message)) for message in letters))
    rows("UPDATE relay.deliveries SET state = 'dead', last_error = 'x', final_status = '503'")
    chatwoot.add_message(10, "here", message_type=OUTGOING)
    del chatwoot.conversations[11]
    agent.seen.clear()
    shown = await relay_command.run("replay", "--dry-run", **env)
    line = "3 to send, of which 1 is answered by now (left out unless you say so: --include-answered)"
    assert line in shown.stdout
    assert "2 dead letters → " in shown.stdout
    listed = json.loads((await relay_command.run("replay", "--dry-run", "--json", **env)).stdout)
    assert (listed["total"], [letter["state"] for letter in listed["not_sent"]]) == (2, ["answered"])
    blind = await relay_command.run("replay", "--dry-run", **(env | {"CHATWOOT_API_KEY": "wrong"}))
    assert "is not known: Chatwoot answered 401" in blind.stderr
    assert "3 dead letters → " in blind.stdout
    ended = await relay_command.run("replay", "--yes", **env)
    assert ended.returncode == 0, ended.stderr
    assert received(agent) == sorted(message["id"] for message in (letters[0], letters[2]))
    ended = await relay_command.run("replay", "--yes", "--include-answered", **env)
    assert len(agent.seen) == 3


@pytest.mark.parametrize(
    ("arguments", "changed", "said", "status"),
    [
        (("--since", "nonsense"), {}, "--since nonsense: say 8h,", 2),
        (("--since", "2099-01-01T00:00"), {}, "--since must be in the past", 2),
        (("--since", "00:00"), {"CHATWOOT_API_KEY": "demo-bot-key"}, "agent bot's", 1),
        (("--since", "00:00"), {"CHATWOOT_API_KEY": ""}, "must be set", 2),
        (("--since", "00:00", "--yes"), {}, "No relay is running", 1),
    ],
)
async def test_what_it_cannot_do_is_said_in_one_line(
    chatwoot: ChatwootStandIn, relay_command: CommandLine, env: dict[str, str],
    arguments: tuple[str, ...], changed: dict[str, str], said: str, status: int,
) -> None:  # fmt: skip
    chatwoot.add_message(7, "hi")
    ended = await relay_command.run("backfill", *arguments, **(env | changed))
    assert (said in ended.stderr, ended.returncode) == (True, status), ended.stderr


async def test_a_mail_that_was_refused_for_its_size_is_fetched_and_one_that_was_erased_is_not(
    start_relay: StartRelay, agent: HeldAgent, chatwoot: ChatwootStandIn, relay_command: CommandLine,
    env: dict[str, str],
) -> None:  # fmt: skip
    relay = await start_relay()
    html = {"email": {"html_content": {"full": "x" * 5_000_000}}}
    mail = chatwoot.add_message(7, "a long mail", created_at=SINCE + 1, content_attributes=html)["id"]
    short = chatwoot.add_message(7, "a short one", created_at=SINCE + 2)["id"]
    for number in (8, 9):
        await deliver(relay, chatwoot, chatwoot.add_message(number, "forget me", created_at=SINCE + 3))
    erased = await relay_command.run("erase", "--conversation", "8", "--json", **env)
    assert json.loads(erased.stdout)["deliveries"] == 1
    agent.seen.clear()
    ended = await relay_command.run("backfill", "--since", stamp(SINCE), "--yes", **env)
    assert ended.returncode == 0, ended.stderr
    assert received(agent) == [mail, short]
    again = await relay_command.run("erase", "--conversation", "8", "--json", **env)
    assert json.loads(again.stdout)["deliveries"] == 0
