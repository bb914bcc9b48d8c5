"""`relay show` and `relay tail`: one delivery close up, and the forwarding log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from relay.store import browse
from relay.store.sessions import connected
from tests.servers import Behaviour, until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.servers import AgentStandIn, Rows, RunningRelay

PAYLOAD = {"event": "message_created", "id": 9, "content": "where \u202e is it", "conversation": {"id": 7}}


async def test_a_delivery_is_shown_with_all_that_happened_to_it(
    relay: RunningRelay, agent: AgentStandIn, relay_command: CommandLine
) -> None:
    agent.behave(Behaviour(status=503, times=1, error="model answered 503"))
    await relay.post(PAYLOAD, X_Chatwoot_Delivery="0192-shown", X_Chatwoot_Signature="sha256=hush")
    ended = await relay_command.run("show", "0192-sh")
    assert ended.returncode == 0, ended.stderr
    assert "delivery 0192-shown: delivered" in ended.stdout
    assert "attempt 1 of run 1: 503 after" in ended.stdout
    assert '{"error": "model answered 503"}' in ended.stdout
    assert "where <U+202E> is it" in ended.stdout or "\\u202e" in ended.stdout
    assert "hush" not in ended.stdout
    document = json.loads((await relay_command.run("show", "0192-shown", "--json")).stdout)
    assert (document["state"], [one["status"] for one in document["attempts"]]) == ("delivered", ["503", "200"])
    assert document["received_at"].endswith("Z")
    assert document["payload"].startswith("{")


async def test_who_asked_is_named_with_the_login_that_they_had(relay_command: CommandLine, rows: Rows) -> None:
    row, name = Plant(rows).delivery("dead", delivery_id="0192-dead"), "maria (CEO)"
    rows(
        "SELECT relay.ask_replay(gen_random_uuid(), %s, '', '', NULL, 0, 0, NULL, ARRAY[%s]::bigint[], '{1}')",
        (name, row),
    )
    rows("SELECT relay.control_replay(id, 'replay.pause', %s, '') FROM relay.replay_plans", (name,))
    rows("SELECT relay.ask_discard(ARRAY[%s]::bigint[], %s, 'spam')", (row, name))
    rows("UPDATE relay.replay_items SET settled_at = now()")
    rows("UPDATE relay.replay_plans SET state = 'paused'")
    login = rows.one("SELECT session_user")
    signed = f"{name} (login: {login})"
    shown = (await relay_command.run("show", "0192-dead")).stdout
    assert f"by {signed}: pending" in shown
    assert f"discarded by {signed}: spam" in shown
    document = json.loads((await relay_command.run("show", "0192-dead", "--json")).stdout)
    assert [one["login"] for one in (*document["replays"], *document["discards"])] == [login, login]
    assert f"of {signed} is paused" in (await relay_command.run("handover")).stdout
    async with connected(rows.dsn) as connection:
        (plan,) = await browse.plans(connection, 8)
    assert (plan.who, plan.paused_by) == (signed, signed)


async def test_an_id_that_is_unknown_or_of_several_is_one_line(relay: RunningRelay, relay_command: CommandLine) -> None:
    for name in ("0192-a", "0192-b"):
        await relay.post(PAYLOAD | {"name": name}, X_Chatwoot_Delivery=name)
    for given, said in (("0192", "Several deliveries begin with 0192"), ("nope", "There is no delivery nope in")):
        ended = await relay_command.run("show", given)
        assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
        assert said in ended.stderr


async def test_the_log_is_printed_and_filtered(
    relay: RunningRelay, agent: AgentStandIn, relay_command: CommandLine, rows: Rows
) -> None:
    agent.behave(Behaviour(status=422, times=1))
    await relay.post(PAYLOAD, X_Chatwoot_Delivery="0192-dead")
    await relay.post(PAYLOAD | {"id": 10}, X_Chatwoot_Delivery="0192-good")
    await until(lambda: rows.one("SELECT count(*) FROM relay.log") == 4)
    ended = await relay_command.run("tail", "--no-follow", "-n", "3")
    lines = ended.stdout.splitlines()
    assert (ended.returncode, len(lines)) == (0, 3)
    assert "[support.webhook] Webhook forwarded successfully { duration: " in lines[-1]
    assert " 0192-good [" in lines[-1]
    for arguments in (("--level", "error"), ("--delivery", "0192-dead", "--level", "warning")):
        (line,) = (await relay_command.run("tail", "--no-follow", *arguments)).stdout.splitlines()
        assert "ERROR 0192-dead [support.webhook] Webhook failed, dead-lettered" in line
    printed = (await relay_command.run("tail", "--no-follow", "--json", "-n", "1")).stdout
    assert json.loads(printed)["message"] == "Webhook forwarded successfully"
