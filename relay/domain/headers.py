"""Which of a webhook's headers are kept: the one allow-list for storing, forwarding and showing them.

A sender or a proxy may add credentials of its own (`Authorization`, `Cookie`, `X-Api-Key`, tokens of an access
proxy). The relay needs none of them, so it stores none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.text import MASK

if TYPE_CHECKING:
    from relay.domain.delivery import Headers

CONTENT_TYPE = "content-type"
CONTENT_ENCODING = "content-encoding"
FORWARDED_FROM_HEADER = "x-forwarded-from"
TEST_HEADER = "x-relay-test"
SIGNATURE_HEADER = "x-chatwoot-signature"
TIMESTAMP_HEADER = "x-chatwoot-timestamp"

ORIGIN_HEADER = "x-relay-origin"
"""Set by the relay alone: `backfill` on a webhook that was not sent by Chatwoot but made of its API's answer."""

TEST_SENDER = "chatwoot-test"
"""The value of `X-Forwarded-From` that marks a test webhook (RUNBOOK, Manual Webhook Test)."""

POST_TEST = "post"
"""The value with which a test webhook asks for its draft to be posted."""

FORWARDED = frozenset({CONTENT_TYPE, CONTENT_ENCODING, ORIGIN_HEADER})
"""Headers that every attempt forwards unchanged, beside those that begin with `FORWARDED_PREFIX`."""

FORWARDED_PREFIX = "x-chatwoot-"

KEPT = FORWARDED | {FORWARDED_FROM_HEADER, TEST_HEADER, "traceparent"}
"""Headers that are stored: those passed on, the marks of a test webhook, and the sender's trace (W3C Trace Context)."""

_FORMS = {
    FORWARDED_FROM_HEADER: re.compile(TEST_SENDER, re.IGNORECASE),
    TEST_HEADER: re.compile(f"{POST_TEST}|true", re.IGNORECASE),
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
}

_SECRET_PARTS = ("signature", "token", "secret", "auth", "key", "password")


def is_forwarded(name: str) -> bool:
    """True if an attempt forwards the header `name` (lower case)."""
    return name in FORWARDED or name.startswith(FORWARDED_PREFIX)


def kept(headers: Headers) -> Headers:
    """Those of `headers` (names in lower case) that are stored.

    Marks and the trace are stored only with a value of their form, so that no credential hides in one.
    """
    return tuple((name, value) for name, value in headers if _is_kept(name, value))


def _is_kept(name: str, value: str) -> bool:
    form = _FORMS.get(name)
    if form is not None:
        return form.fullmatch(value.strip()) is not None
    return name in KEPT or name.startswith(FORWARDED_PREFIX)


def received(headers: Headers) -> Headers:
    """Those of a webhook's `headers` that are stored as it comes in: no sender may claim the relay's own mark."""
    return tuple(item for item in kept(headers) if item[0] != ORIGIN_HEADER)


def shown(headers: Headers) -> Headers:
    """Those of `headers` that a screen may show; the value of a signature or another secret is `MASK`.

    A delivery that an earlier version stored may still have headers that are not kept today.
    """
    return tuple(
        (name, MASK if any(part in name for part in _SECRET_PARTS) else value) for name, value in kept(headers)
    )


def test_value(headers: Headers) -> str:
    """The value of `TEST_HEADER` that the agent gets for a test webhook with these `headers`."""
    wanted = (first_header(headers, TEST_HEADER) or "").strip().lower()
    return POST_TEST if wanted == POST_TEST else "true"


def first_header(headers: Headers, name: str) -> str | None:
    """The first value of the header `name` (lower case), or None."""
    return next((value for key, value in headers if key == name), None)
