"""The agent's rules as values: when a webhook gets a draft, what ends one, and how long to wait for quiet."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from relay.agent.media import own_url
from relay.agent.message import Author, Message, read_message, unix_seconds
from relay.agent.rules import QUIET_WINDOWS, Ended, Rules, ended_by, ignored_because, quiet_wait_s, unanswered
from relay.agent.webhook import ConversationState, read_webhook
from relay.chatwoot.samples import documented_payload

if TYPE_CHECKING:
    from random import Random

RULES = Rules(account_id=1)


def said(
    number: int, author: Author = Author.CUSTOMER, at: float | None = None, no_draft: str | None = None
) -> Message:
    return Message(number, author, "text", at, no_draft=no_draft)


def test_chatwoots_own_sample_and_the_runbooks_curl_get_a_draft() -> None:
    curl = {"event": "message_created", "id": 12345, "content": "Test message", "message_type": 0}
    for payload in (documented_payload("message_created"), curl | {"conversation": {"id": 1}}):
        assert ignored_because(read_webhook(payload), RULES) is None
    assert ignored_because(read_webhook(documented_payload("message_updated")), RULES) == "not a new message"


def test_each_author_is_recognised_in_words_and_in_numbers() -> None:
    table = [
        ({"message_type": 0}, Author.CUSTOMER),
        ({"message_type": "incoming", "sender": {"type": "contact"}}, Author.CUSTOMER),
        ({"message_type": "incoming", "sender": {"type": "agent_bot"}}, Author.AUTOMATIC),
        ({"message_type": 1, "sender": {"type": "user"}}, Author.TEAM),
        ({"message_type": "outgoing", "sender": None, "content_attributes": {"external_echo": True}}, Author.TEAM),
        ({"message_type": 1, "sender": {"type": "agent_bot"}}, Author.AUTOMATIC),
        ({"message_type": 1, "content_attributes": {"automation_rule_id": 3}}, Author.AUTOMATIC),
        ({"message_type": 1, "additional_attributes": {"campaign_id": 3}}, Author.AUTOMATIC),
        ({"message_type": 1, "private": True}, Author.NOTE),
        ({"message_type": 0, "private": True}, Author.NOTE),
        ({"message_type": 2}, Author.ACTIVITY),
        ({"message_type": "template"}, Author.AUTOMATIC),
    ]
    read = [(read_message({"id": 1} | fields), author) for fields, author in table]
    assert [(message.author if message else None, author) for message, author in read] == [(a, a) for _, a in table]


def test_times_are_read_in_every_form() -> None:
    forms = [1627063368, 1627063368.0, "1627063368", "2021-07-23T18:02:48.000Z", "2021-07-23T18:02:48"]
    assert {unix_seconds(form) for form in forms} == {1627063368.0}
    assert [unix_seconds(form) for form in (0, "0", -5, None, True, "soon", 1e30, [], "1970-01-01T00:00:00Z")] == [
        None
    ] * 9


def test_what_is_not_known_of_a_conversation_forbids_nothing() -> None:
    strict = Rules(1, statuses=frozenset({"open"}), assigned=False, stop_label="no-draft")
    webhook = read_webhook({"event": "message_created", "id": 1, "message_type": 0, "conversation": {"id": 1}})
    assert ignored_because(webhook, strict) is None
    assigned = replace(webhook, state=ConversationState("open", assigned=True))
    assert ignored_because(assigned, strict) == "conversation is assigned"


def test_a_newer_message_takes_the_draft_only_if_it_gets_one_itself() -> None:
    newer = said(5)
    assert ended_by([said(4), newer], 4, 4) is Ended.LEFT_TO_NEWER
    for other in (replace(newer, no_draft="reaction"), said(5, Author.AUTOMATIC), said(5, Author.NOTE), said(3)):
        assert ended_by([said(4), other], 4, 4) is None
    assert ended_by([said(4), newer, said(6, Author.TEAM)], 4, 4) is Ended.ANSWERED
    assert ended_by([said(4, no_draft="deleted message"), newer], 4, 4) is Ended.DELETED


def test_a_reply_that_was_deleted_answers_nothing() -> None:
    gone = said(5, Author.TEAM, no_draft="deleted message")
    assert ended_by([said(4), gone], 4, 4) is None
    assert unanswered([said(3), gone], said(6)) == [said(3), said(6)]


def test_the_account_is_read_in_every_form_and_one_that_cannot_be_read_is_not_ours() -> None:
    message = {"event": "message_created", "id": 1, "message_type": 0, "conversation": {"id": 1}}
    for account in (None, {}, {"id": None}, {"id": 1}, {"id": "1"}):
        assert ignored_because(read_webhook(message | {"account": account}), RULES) is None, account
    unreadable: list[object] = [{"id": 0}, {"id": True}, {"id": 1.5}, {"id": [1]}, {"id": -1}, "x", []]
    others: list[object] = [{"id": 2}, {"id": "2"}, 2, *unreadable]
    for account in others:
        assert ignored_because(read_webhook(message | {"account": account}), RULES) == "another account", account


@given(st.lists(st.sampled_from(list(Author)), min_size=1, max_size=12), st.randoms())
def test_of_any_conversation_exactly_the_newest_unanswered_message_gets_a_draft(
    authors: list[Author], random: Random
) -> None:
    thread = [said(number, author) for number, author in enumerate(authors, 1)]
    shuffled = sorted(thread, key=lambda _: random.random())
    drafted = [one for one in thread if one.wants_draft and ended_by(shuffled, one.id, one.id) is None]
    last_reply = max((one.id for one in thread if one.author is Author.TEAM), default=0)
    waiting = [one for one in thread if one.wants_draft and one.id > last_reply]
    assert drafted == waiting[-1:]
    if drafted:
        before = [one for one in shuffled if one.id < drafted[0].id]
        assert unanswered(before, drafted[0]) == waiting


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.sampled_from([0.0, 0.5, 1.5, 5.0]))
def test_a_customer_is_waited_for_three_quiet_windows_at_most(gaps: list[int], quiet_s: float) -> None:
    times = [1_700_000_000 + sum(gaps[:number]) for number in range(1, len(gaps) + 1)]
    thread = [said(number, at=at) for number, at in enumerate(times, 1)]
    wait_s = quiet_wait_s(quiet_s, thread)
    assert 0 <= wait_s <= quiet_s
    first = times[-1]
    for earlier, later in reversed(list(pairwise(times))):
        if later - earlier > quiet_s + 1:
            break
        first = earlier
    assert wait_s == 0 or times[-1] - first + wait_s <= QUIET_WINDOWS * quiet_s
    assert quiet_wait_s(quiet_s, thread[-1:]) == quiet_s
    assert quiet_wait_s(quiet_s, [*thread[:-1], replace(thread[-1], created_at=None)]) == quiet_s


def test_files_are_read_from_chatwoots_own_host_alone() -> None:
    base = "http://chatwoot:3000/chat"
    blob = "/rails/active_storage/blobs/redirect/abc/a.png?x=1"
    assert own_url(f"https://public.example{blob}", base) == base + blob
    assert own_url("http://chatwoot:3000/other.png", base) == "http://chatwoot:3000/other.png"
    foreign = ["http://169.254.169.254/latest", "file:///etc/passwd", "http://chatwoot/other", "http://[bad", "", "x"]
    assert [own_url(url, base) for url in foreign] == [None] * len(foreign)
    assert own_url(f"http://169.254.169.254{blob}", base) == base + blob
