"""The filter grammar against real dead letters: every key finds what it says, and no text is ever SQL."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import FilterError
from relay.store.filters import compile_filter
from tests.servers import Rows, database_like
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAYLOADS = {
    "a": rb'{"conversation": {"id": 77}, "sender": {"name": "Jane Doe"}, "content": "100% off_now \\ back"}',
    "b": '{"conversation": {"id": 78}, "sender": {"name": "JANET"}, "tags": ["vip", "eu"], "note": "déjà vu"}'.encode(),
    "c": rb'{"conversation": {"id": 771}, "content": "nothing \u0000 in jsonb"}',
    "d": b'{"odd.key": {"x": true}, "none": null, "content": "two  words"}',
}


@pytest.fixture(scope="module")
def letters(postgres: str) -> Iterator[psycopg.Connection[Any]]:
    """Four dead letters, `a` to `d`, and one of each other state."""
    with database_like("migrated", postgres) as dsn, Rows(dsn).connected() as rows:
        plant = Plant(rows)
        plant.delivery(delivery_id="aaa-1", body=_PAYLOADS["a"], conversation_id="77", age_s=600)
        plant.delivery(
            delivery_id="BBB-2", body=_PAYLOADS["b"], event="conversation_updated", conversation_id="78",
            final_status="429", last_error="Agent SDK is rate limiting (429)", age_s=2 * 3600,
        )  # fmt: skip
        plant.delivery(
            delivery_id="ccc-3", body=_PAYLOADS["c"], event="message_updated", conversation_id="771", test=True,
            final_status="timeout", last_error="Agent SDK did not answer within 30 s", age_s=26 * 3600,
        )  # fmt: skip
        plant.delivery(
            delivery_id="ddd-4", body=_PAYLOADS["d"], event=None, final_status="404",
            last_error="Agent SDK refused the payload (404)", age_s=20,
        )  # fmt: skip
        for state in ("received", "delivered", "discarded"):
            plant.delivery(state, delivery_id=f"{state}-x", body=b"{}", event="webwidget_triggered")
        with psycopg.connect(dsn, autocommit=True) as connection:
            yield connection


def found(letters: psycopg.Connection[Any], text: str, *, now: datetime | None = None, also: str = "state:dead") -> str:
    """The first letters of the ids of what the filter finds."""
    condition = compile_filter(f"{text} {also}", now=now)
    statement = (
        f"SELECT left(lower(d.delivery_id), 1) FROM relay.deliveries d WHERE {condition.sql.as_string()} ORDER BY 1"
    )
    return "".join(row[0] for row in letters.execute(statement.encode(), condition.parameters))


FILTERS = {
    "": "abcd",
    "error:503": "a",
    "error:limiting": "b",
    "error:TIMEOUT": "c",
    'error:"agent sdk"': "abcd",
    "!error:503": "bcd",
    "status:503": "a",
    "status:429,timeout": "bc",
    "status:429,TIMEOUT,": "bc",
    "status:5xx": "a",
    "status:4xx": "bd",
    "status:4xx,timeout": "bcd",
    "!status:4XX": "ac",
    "status:50": "",
    "event:message_created": "a",
    "event:message": "ac",
    "event:MESSAGE_UP": "c",
    "!event:message": "bd",
    "conv:77": "a",
    "conv:77,79999": "a",
    "event:message_*": "ac",
    "event:message_created,MESSAGE_UPDATED": "ac",
    "!conv:77": "bcd",
    "id:aaa": "a",
    "id:bbb-2": "b",
    "id:bb-2": "",
    "test:yes": "c",
    "test:no": "abd",
    "!test:true": "abd",
    "test:FALSE": "abd",
    "age:<1h": "ad",
    "age:>1h": "bc",
    "age:1h": "ad",
    "age:>1.5d": "",
    "age:>1d": "c",
    "age:<30000ms": "d",
    "age:<1w age:>5m": "abc",
    "payload.conversation.id:77": "a",
    "payload.conversation.id:77*": "a",
    "payload.sender.name:jane*": "ab",
    "payload.sender.name:Jane": "",
    'payload.sender.name:"jane doe"': "a",
    "!payload.sender.name:jane*": "cd",
    "payload.content:100%*": "a",
    "payload.content:100_*": "",
    "payload.content:*off_now*": "a",
    r"payload.content:*\\*": "",
    r'payload.content:"*\\\\*"': "",
    r'payload.content:"*\\*"': "a",
    "payload.tags.0:vip": "b",
    "payload.none:null": "",
    "payload.odd:x": "",
    "payload.note:déjà*": "b",
    "limiting": "b",
    "JANE": "ab",
    "message_up": "c",
    "bbb-2": "b",
    "77": "ac",
    "u0000": "c",
    '"two  words"': "d",
    '"two words"': "",
    "two words": "d",
    "!jane !limiting": "cd",
    "error:503 conv:77": "a",
    "error:503 conv:78": "",
    "100%": "a",
    "%": "a",
    "DÉJÀ": "b",
    '"error:503"': "",
    "nothing-of-this": "",
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FILTERS.items(), ids=[text or "empty" for text in FILTERS])
def test_a_filter_finds_what_it_says(letters: psycopg.Connection[Any], text: str, expected: str) -> None:
    assert found(letters, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("state:dead", "abcd"), ("state:received,delivered", "dr"), ("!state:dead", "ddr"), ("STATE:Discarded", "d")],
)
def test_a_filter_over_all_deliveries_can_ask_for_states(
    letters: psycopg.Connection[Any], text: str, expected: str
) -> None:
    assert found(letters, text, also="") == expected


@pytest.mark.parametrize(
    ("key", "ago", "expected"),
    [
        ("since", timedelta(hours=1), "ad"),
        ("since", timedelta(hours=3), "abd"),
        ("until", timedelta(hours=1), "bc"),
        ("until", timedelta(minutes=1), "abc"),
        ("since", timedelta(days=2), "abcd"),
    ],
)
@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dt%H:%M:%S+00:00"])
def test_a_moment_with_a_date_is_in_utc(
    letters: psycopg.Connection[Any], key: str, ago: timedelta, expected: str, form: str
) -> None:
    moment = datetime.now(UTC) - ago
    assert found(letters, f"{key}:{moment.strftime(form)}") == expected


def test_a_moment_may_name_its_own_zone(letters: psycopg.Connection[Any]) -> None:
    moment = datetime.now(UTC) - timedelta(hours=1) + timedelta(hours=9)
    for form in ("%Y-%m-%dT%H:%M:%S+09:00", "%H:%M:%S+09:00"):
        assert found(letters, f"since:{moment.strftime(form)}") == "ad"


def test_a_time_without_a_date_is_the_last_such_time(letters: psycopg.Connection[Any]) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for hours, expected in ((1, "ad"), (3, "abd"), (23, "abd")):
        clock = (now - timedelta(hours=hours)).strftime("%H:%M:%S")
        assert found(letters, f"since:{clock}", now=now) == expected
    later = (now + timedelta(hours=2)).strftime("%H:%M")  # yesterday's
    assert found(letters, f"since:{later}", now=now) == "abd"


WRONG = {
    "error:": "a value is missing",
    'error:"open': "a quote is left open",
    'wo"rd': "is inside a word",
    '""': "a value is missing",
    "!": "a value is missing",
    "colour:red": "is not a key; known are error: status:",
    "http://x": "put a word with a colon in quotes",
    "state:asleep": "states are received, forwarding",
    "test:maybe": "test:yes or test:no",
    "age:soon": "age:<1h",
    "age:-1h": "age:<1h",
    "age:>1y": "age:<1h",
    "age:>99999999999999999999999d": "too long ago",
    "age:>999999999d": "too long ago",
    "age:<3000000d": "too long ago",
    "since:25:00": "since:14:02",
    "since:2026-13-01": "since:2026-11-23T14:02",
    "until:yesterday": "until:14:02",
    "since:14:02+2": "since:14:02",
    "payload.:x": "payload.conversation.id:77",
    "payload..id:x": "payload.conversation.id:77",
    "a\0b": "NUL",
    "caf\udce9": "not text",
}


@pytest.mark.parametrize(("text", "part"), WRONG.items(), ids=map(ascii, WRONG))
def test_a_filter_that_does_not_parse_says_what_would(text: str, part: str) -> None:
    with pytest.raises(FilterError) as refused:
        compile_filter(text)
    assert part in str(refused.value)


HOSTILE = [
    "'; DROP TABLE relay.deliveries; --", "\" OR 1=1 --", "') OR ('1'='1", "%(f0)s", "%s", "%%", "{x}", "$1", ":name",
    "\\", "\\'", "x' UNION SELECT 1 --", "payload.a'b:x", "payload.%(x)s:y", "payload.conversation.id:' OR '1'='1",
    "error:%(most)s", "id:%", "event:%", "state:dead'", "status:5xx'),('", "conv:77;--", "age:<1h'", "test:yes)",
    "a" * 10_000, "payload." + "a." * 300 + "b:x", " ".join(f"w{n}" for n in range(400)), "\u202e\u0000x", "ﬁ\u0130",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:40])
def test_hostile_text_finds_nothing_or_is_refused(letters: psycopg.Connection[Any], text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    for attempt in (text, quoted, f"error:{quoted}", f"payload.content:{quoted}", f"status:{quoted}"):
        with suppress(FilterError):
            assert set(found(letters, attempt)) <= {"a", "c"}  # they hold a % and a backslash
    assert found(letters, "") == "abcd"


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_at_all_is_refused_or_runs(letters: psycopg.Connection[Any], text: str) -> None:
    with suppress(FilterError):
        found(letters, text)
    assert found(letters, "") == "abcd"


_FINDS = """
    SELECT {} FROM (SELECT %(text)s::text AS last_error, ''::text AS event, ''::text AS delivery_id,
                           ''::bytea AS body) d
"""
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(_TEXTS, st.data())
@settings(max_examples=100, deadline=None)
def test_a_quoted_word_is_found_anywhere_in_the_text(
    letters: psycopg.Connection[Any], text: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(text)))
    word = text[start : data.draw(st.integers(start, len(text)))]
    if not word:
        return
    condition = compile_filter('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"')
    row = letters.execute(
        _FINDS.format(condition.sql.as_string()).encode(), condition.parameters | {"text": text}
    ).fetchone()
    assert row == (True,)
