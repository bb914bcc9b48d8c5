"""The agent before Chatwoot as it is: other accounts, copies, lost answers, colleagues, machines, refusals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from relay.agent import attempt
from relay.demo.chatwoot import Oddity
from relay.demo.chatwoot.records import OUTGOING
from tests.agent.conftest import Model, customer, message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.agent.conftest import RunningAgent
    from tests.servers import Rows

    Start = Callable[..., Awaitable[RunningAgent]]


def ignored(reason: str) -> tuple[int, dict[str, Any]]:
    """The answer to a webhook that gets no draft."""
    return 200, {"ignored": True, "reason": reason}


async def test_another_accounts_message_gets_no_note(start_agent: Start, chatwoot: ChatwootStandIn) -> None:
    agent = await start_agent()
    answer = await agent.post(message(account={"id": 2}))
    assert (answer.status_code, answer.json()) == ignored("another account")
    test = await agent.post(message(account={"id": 2}), **{"x-relay-test": "post"})
    assert (test.status_code, test.json()) == ignored("another account")
    assert chatwoot.notes == []


async def test_one_message_under_two_delivery_ids_is_one_note(start_agent: Start, chatwoot: ChatwootStandIn) -> None:
    agent = await start_agent()
    payload = customer(chatwoot)
    first, second = await agent.post(payload, key="account webhook"), await agent.post(payload, key="API inbox")
    (note,) = chatwoot.notes
    assert first.json() == {"status": "draft_ready", "conversation_id": 7, "note_id": note["id"]}
    assert second.json() == first.json() | {"duplicate": True}


async def test_a_note_whose_answer_was_lost_is_found_among_more_than_twenty_messages(
    start_agent: Start, chatwoot: ChatwootStandIn, rows: Rows
) -> None:
    agent = await start_agent()
    payload = customer(chatwoot)
    chatwoot.oddities |= {Oddity.ANSWER_LOST, Oddity.ATTRIBUTES_DROPPED}
    assert (await agent.post(payload)).json()["status"] == "draft_ready"
    (note,) = chatwoot.notes
    assert note["content_attributes"] == {}
    assert note["source_id"] == f"relay-draft-1-{payload['id']}"
    for number in range(130):
        chatwoot.add_message(7, f"note {number}", message_type=OUTGOING, private=True)
    rows("UPDATE relay.notes SET note_id = NULL, posted_at = NULL, posting_at = now()")
    again = await agent.post(payload)
    assert again.json() == {"status": "draft_ready", "conversation_id": 7, "note_id": note["id"], "duplicate": True}
    assert sum(one["content"] == note["content"] for one in chatwoot.notes) == 1


async def test_a_note_of_an_earlier_version_is_recognised(start_agent: Start, chatwoot: ChatwootStandIn) -> None:
    payload = customer(chatwoot)
    marks = {"relay_idempotency_key": "its delivery id"}
    old = chatwoot.add_message(7, "old note", message_type=OUTGOING, private=True, content_attributes=marks)
    answer = await (await start_agent()).post(payload, key="its delivery id")
    assert (answer.json()["note_id"], answer.json()["duplicate"]) == (old["id"], True)


async def test_a_post_that_may_still_arrive_is_not_repeated(
    start_agent: Start, chatwoot: ChatwootStandIn, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await start_agent()
    payload = customer(chatwoot)
    chatwoot.oddities.add(Oddity.TOO_MANY_MESSAGES)
    limited = await agent.post(payload)
    assert (limited.status_code, limited.json()["error"]) == (502, "Chatwoot answered 422: too many messages")
    assert "retry-after" in limited.headers
    chatwoot.oddities.clear()
    monkeypatch.setattr(attempt, "SETTLE_S", 600.0)
    rows("UPDATE relay.notes SET posting_at = now()")
    early = await agent.post(payload)
    assert early.status_code == 502
    assert 300 <= int(early.headers["retry-after"]) <= 600
    assert chatwoot.notes == []
    rows("UPDATE relay.notes SET posting_at = now() - interval '1 hour'")
    assert (await agent.post(payload)).json()["status"] == "draft_ready"
    assert len(chatwoot.notes) == 1


async def test_a_colleague_who_answered_first_ends_the_draft(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model
) -> None:
    agent = await start_agent(llm_base_url=model.url, llm_model="small")
    payload = customer(chatwoot)
    echo = {"sender": None, "content_attributes": {"external_echo": True}}
    for fields in ({}, echo):
        reply = chatwoot.add_message(7, "It left us today.", message_type=OUTGOING, **fields)
        answer = await agent.post(payload)
        assert (answer.status_code, answer.json()) == ignored("answered already")
        chatwoot.conversations[7].remove(reply)
    assert model.asked == []
    chatwoot.add_message(7, "We are away", message_type=3, sender=None)  # no person's answer

    async def reply_meanwhile() -> None:
        chatwoot.add_message(7, "It left us today.", message_type=OUTGOING)

    model.meanwhile = reply_meanwhile
    answer = await agent.post(payload)
    assert (answer.status_code, answer.json()) == ignored("answered already")
    assert (len(model.asked), chatwoot.notes) == (1, [])


async def test_a_newer_message_that_comes_while_the_model_drafts_gets_the_note(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model
) -> None:
    agent = await start_agent(llm_base_url=model.url, llm_model="small")
    first, newer = customer(chatwoot, "Where is my order?"), []

    async def write_meanwhile() -> None:
        model.meanwhile = None
        newer.append(customer(chatwoot, "It is number 5."))

    model.meanwhile = write_meanwhile
    left = await agent.post(first)
    assert (left.status_code, left.json()) == (200, {"status": "left_to_newer"})
    assert (await agent.post(newer[0])).json()["status"] == "draft_ready"
    assert model.turns == [("user", "Where is my order?"), ("user", "It is number 5.")]
    assert len(chatwoot.notes) == 1


async def test_what_wants_no_reply_gets_no_draft(start_agent: Start, chatwoot: ChatwootStandIn) -> None:
    agent = await start_agent()
    wanted = {
        "reaction": {"content_attributes": {"is_reaction": True}},
        "unsupported message": {"content_attributes": {"is_unsupported": True}},
        "deleted message": {"content_attributes": {"deleted": True}},
        "automatic mail": {"content_attributes": {"email": {"auto_reply": True}}},
    }
    senders: list[Any] = [["no-reply@shop.example"], "MAILER-DAEMON@mail.example", ["noreply@x.example"]]
    got = {name: (await agent.post(customer(chatwoot, "x", **fields))).json() for name, fields in wanted.items()}
    assert got == {name: ignored(name)[1] for name in wanted}
    for sender in senders:
        answer = await agent.post(customer(chatwoot, "x", content_attributes={"email": {"from": sender}}))
        assert answer.json() == ignored("automatic mail")[1]
    chatwoot.states[7].blocked = True
    assert (await agent.post(customer(chatwoot))).json() == ignored("blocked contact")[1]
    assert chatwoot.notes == []


async def test_a_message_that_was_deleted_since_gets_no_draft(start_agent: Start, chatwoot: ChatwootStandIn) -> None:
    payload = customer(chatwoot)
    chatwoot.conversations[7][-1] |= {"content": "This message was deleted", "content_attributes": {"deleted": True}}
    assert (await (await start_agent()).post(payload)).json() == ignored("deleted message")[1]


async def test_a_reaction_after_the_message_does_not_take_its_draft(
    start_agent: Start, chatwoot: ChatwootStandIn
) -> None:
    payload = customer(chatwoot)
    customer(chatwoot, "👍", content_attributes={"is_reaction": True})
    assert (await (await start_agent()).post(payload)).json()["status"] == "draft_ready"


async def test_the_team_says_when_drafts_are_wanted(start_agent: Start, chatwoot: ChatwootStandIn) -> None:
    state, payload = chatwoot.states[7], customer(chatwoot)
    agent = await start_agent(agent_draft_when="open,pending,unassigned", agent_inboxes="1,3")
    assert (await agent.post(payload)).json() == ignored("conversation is assigned")[1]
    state.assignee = None
    elsewhere = chatwoot.payload_of(chatwoot.conversations[7][-1]) | {"inbox": {"id": 2, "name": "Sales"}}
    assert (await agent.post(elsewhere)).json() == ignored("another inbox")[1]
    payload = chatwoot.payload_of(chatwoot.conversations[7][-1])
    state.status = "resolved"  # since the webhook was sent
    assert (await agent.post(payload)).json() == ignored("conversation is resolved")[1]
    state.status, state.labels = "open", ["vip", "No-Draft"]
    assert (await agent.post(payload)).json() == ignored("label no-draft")[1]
    state.labels = ["vip"]
    assert (await agent.post(payload)).json()["status"] == "draft_ready"


async def test_a_forms_answers_get_a_draft_where_the_team_wants_one(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model
) -> None:
    form = chatwoot.add_message(7, "Your order?", message_type=3, sender=None, content_type="form")
    chatwoot.add_message(7, "A moment, please")
    answers = [{"name": "order", "value": "5"}, {"name": "city", "value": "Porto"}]
    form["content_attributes"] = {"submitted_values": answers}
    payload = chatwoot.payload_of(form) | {"event": "message_updated"}
    plain = await start_agent(llm_base_url=model.url, llm_model="small")
    assert (await plain.post(payload)).json() == ignored("not a new message")[1]
    wanting = await start_agent(llm_base_url=model.url, llm_model="small", agent_draft_forms=True)
    first, second = await wanting.post(payload), await wanting.post(payload)
    assert first.json()["status"] == "draft_ready"
    assert second.json()["duplicate"] is True
    assert model.turns == [("user", "A moment, please"), ("user", "order: 5\ncity: Porto")]


async def test_three_causes_are_three_errors_and_permanent_ones_are_4xx(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model
) -> None:
    agent = await start_agent(llm_base_url=model.url, llm_model="small")
    model.status = 400
    answers = [await agent.post(customer(chatwoot))]
    model.status = 200
    answers.append(await agent.post(message(conversation={"id": 5_000})))
    chatwoot.api_key = "another"
    answers.append(await agent.post(customer(chatwoot)))
    assert [(one.status_code, one.json()["error"]) for one in answers] == [
        (422, "model answered 400"), (422, "Chatwoot answered 404"), (422, "Chatwoot answered 401"),
    ]  # fmt: skip
    assert all("retry-after" not in one.headers for one in answers)
    chatwoot.healthy = False
    passing = await agent.post(customer(chatwoot))
    assert (passing.status_code, passing.json()["error"]) == (502, "Chatwoot answered 503")
    assert int(passing.headers["retry-after"]) >= 1


async def test_no_connection_is_held_while_models_draft(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model, rows: Rows
) -> None:
    agent = await start_agent(llm_base_url=model.url, llm_model="small")
    numbers = range(100, 125)
    chatwoot.open_conversations(numbers)
    waiting, release = asyncio.Semaphore(0), asyncio.Event()

    async def hold() -> None:
        waiting.release()
        await release.wait()

    model.meanwhile = hold
    payloads = [chatwoot.payload_of(chatwoot.add_message(number, "Hi")) for number in numbers]
    posting = [asyncio.create_task(agent.post(payload)) for payload in payloads]
    for _ in numbers:
        await waiting.acquire()
    mine = "FROM pg_stat_activity WHERE application_name = 'hotdash agent'"
    assert rows(f"SELECT count(*) {mine} AND state <> 'idle'") == [0]
    assert rows(f"SELECT count(*) <= 8 {mine}") == [True]
    release.set()
    assert {(await answer).status_code for answer in posting} == {200}
    assert len(chatwoot.notes) == len(numbers)
