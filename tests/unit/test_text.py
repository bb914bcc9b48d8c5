"""`relay.text`: what leaves it steers no terminal, loses nothing, and says what it cut."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.domain.filters import parse
from relay.domain.notifications import Message, for_slack
from relay.errors import FilterError
from relay.text import (
    chat_text,
    chatwoot_text,
    clean,
    clean_value,
    escaped,
    json_text,
    unicode_escaped,
    without_secrets,
)
from tests.store.hostile import HOSTILE, harmful, texts_in

TEXTS = st.text() | st.lists(st.sampled_from(HOSTILE), max_size=20).map("".join)
JSON = st.recursive(
    TEXTS | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


@given(TEXTS)
@settings(max_examples=500, deadline=None)
def test_no_form_of_a_text_holds_what_could_harm(text: str) -> None:
    for shown in (clean(text), escaped(text), unicode_escaped(text), json_text(text), json_text({text: text})):
        assert harmful(shown) <= _HARMLESS
    assert "\n" not in escaped(text)
    assert harmful(clean(text, newlines=True), lines=True) <= _HARMLESS


# Visible marks of scripts that Unicode counts among the format characters: they are part of words.
_HARMLESS = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd") | {
    chr(code) for code in (*range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B))
}


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_json_is_readable_and_gives_the_exact_values_back(value: object) -> None:
    for text in (json_text(value), json_text(value, indent=2)):
        assert json.loads(text) == value
        assert harmful(text, lines=True) <= _HARMLESS
    assert json_text("Ünïcödé 漢字 🙂") == '"Ünïcödé 漢字 🙂"'


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_every_text_in_a_value_is_cleaned_and_nothing_else_changes(value: object) -> None:
    shown = clean_value(value)
    assert set().union(*map(harmful, texts_in(shown))) <= _HARMLESS
    assert clean_value([1, 2.5, None, True, b"\x1b"]) == [1, 2.5, None, True, b"\x1b"]


def test_what_nests_too_deeply_is_left_out() -> None:
    value: object = "\x1b"
    for _ in range(5_000):
        value = [value]
    assert str(clean_value(value)) == "[" * 20 + "'…'" + "]" * 20


@pytest.mark.parametrize(
    ("length", "said"), [(501, "1 characters"), (12_500, "12 kB"), (1_200_500, "1.2 MB"), (500, None)]
)
def test_what_is_cut_is_said(length: int, said: str | None) -> None:
    assert clean("x" * length) == "x" * min(length, 500) + (f"… {said} more" if said else "")
    assert clean("x" * length, limit=None) == "x" * length


def test_escapes_are_those_of_json() -> None:
    assert escaped("a\x1b\n\t\x9b\u202e\U000e0041\x7fz") == "a\\u001b\\n\\t\\u009b\\u202e\\udb40\\udc41\\u007fz"


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1))
@settings(max_examples=500, deadline=None)
def test_a_filters_quotes_carry_any_text(text: str) -> None:
    quoted = unicode_escaped(text.replace("\\", "\\\\").replace('"', '\\"'))
    (term,) = parse(f'error:"{quoted}"')
    assert term.value == text


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "\\udc00\\ud800"])
def test_a_filters_quotes_refuse_what_is_no_text(text: str) -> None:
    with pytest.raises(FilterError, match="NUL character or bytes"):
        parse(f'error:"{text}"')


@given(st.text(st.sampled_from("{%}[]()mention:/ userx1\ud800\x00")), st.integers(20, 60))
def test_chatwoot_finds_no_mention_and_no_liquid_in_its_text(text: str, limit: int) -> None:
    for given_text in (text, text.replace("x", "mention://"), text.replace("x", "[a](mention://user/1/a)")):
        safe = chatwoot_text(given_text, limit=limit)
        assert not re.search(r"mention://|\{\{|\{%", safe, re.IGNORECASE)
        assert len(safe) <= limit
        safe.encode()


def test_text_for_chatwoot_keeps_what_languages_need() -> None:
    for text in ("👩‍💻 می‌خواهم", "a\n\n- b\tc", "{a} % [link](https://x.example)", "`{ code }`"):
        assert chatwoot_text(text, limit=100) == text
    assert chatwoot_text("[Bob](mention://user/1/Bob), {{a}}", limit=100) == "Bob, { {a}}"
    assert chatwoot_text("x" * 101, limit=100) == "x" * 93 + "… (cut)"


_CHATS = {
    "held by <!channel>": "held by &lt;!channel>",
    "<@U024BE7LH> <https://evil.example|the console>": "&lt;@U024BE7LH> &lt;https://evil.example|the console>",
    "&lt;!here&gt; & co": "&amp;lt;!here&amp;gt; & co",
    "@here, @Everyone: (@all)": "@ here, @ Everyone: (@ all)",
    "[sign in](https://evil.example)": "[sign in] (https://evil.example)",
    "success rate < 50 % for maria@all.example, [a] (b)": "success rate < 50 % for maria@all.example, [a] (b)",
}


def test_text_for_a_chat_notifies_nobody_and_hides_no_address() -> None:
    assert {text: chat_text(text) for text in _CHATS} == _CHATS
    at = "2026-11-27T14:02:11Z"
    message = Message(
        installation="prod <!here>", database="db@host", headline="Held by <!channel>", command="relay status",
        rule="r", severity="P0", condition="rate < 50 %", raised=True, value="1", threshold="2", since=at, at=at,
    )  # fmt: skip
    said = for_slack(message)["text"]
    assert "<!" not in said
    assert "rate < 50 %" in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no answer from https://bot:hunter2@chat.example/api", "no answer from https://(not shown)@chat.example/api"),
        ("redis://:pa55@h:6379 is away", "redis://(not shown)@h:6379 is away"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer (not shown)"),
        ("sent Bearer abcdef123456 to it", "sent Bearer (not shown) to it"),
        ("GET /x?api_key=abcdef&page=2", "GET /x?api_key=(not shown)&page=2"),
        ('{"api_access_token": "abc def", "n": 1}', '{"api_access_token": (not shown), "n": 1}'),
        ("password='a b c' is wrong", "password=(not shown) is wrong"),
        ("CHATWOOT_WEBHOOK_SECRET=s3cr3t", "CHATWOOT_WEBHOOK_SECRET=(not shown)"),
        ("key sk-proj-abcdefghij0123456789 was refused", "key (not shown) was refused"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "(not shown)"),
    ],
)  # fmt: skip
def test_what_may_be_a_credential_is_masked(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Chatwoot answered 401", "model answered 400: max_tokens: 4096 is too large", "Basic authentication failed",
        "token expiration reached", "mail to a@b.example bounced", "https://chat.example/@anna", "signature: invalid",
        '{"status": "draft_ready", "note": 12}',
    ],
)  # fmt: skip
def test_other_text_is_not_masked(text: str) -> None:
    assert without_secrets(text) == text
