"""The allow-list of headers: what is stored, what is passed on, what is shown."""

from __future__ import annotations

import pytest

from relay.domain.headers import is_forwarded, kept, shown
from relay.text import MASK

CREDENTIALS = (
    "authorization", "proxy-authorization", "cookie", "x-api-key", "cf-access-jwt-assertion", "cf-access-client-secret",
    "x-forwarded-access-token", "x-amzn-oidc-data", "x-goog-iap-jwt-assertion", "x-auth-request-access-token",
    "x-csrf-token", "api_access_token", "x-forwarded-for", "host", "x-chatwoot",
)  # fmt: skip


@pytest.mark.parametrize("name", CREDENTIALS)
def test_what_a_proxy_or_a_sender_adds_is_neither_stored_nor_passed_on_nor_shown(name: str) -> None:
    headers = ((name, "s3cret"), ("content-type", "application/json"))
    assert kept(headers) == shown(headers) == headers[1:]
    assert not is_forwarded(name)


@pytest.mark.parametrize(
    ("name", "forwarded", "masked"),
    [
        ("content-type", True, False), ("content-encoding", True, False), ("x-chatwoot-delivery", True, False),
        ("x-chatwoot-timestamp", True, False), ("x-chatwoot-signature", True, True),
        ("x-chatwoot-webhook-token", True, True),
    ],
)  # fmt: skip
def test_what_is_needed_is_stored_and_shown_unless_it_is_secret(name: str, forwarded: bool, masked: bool) -> None:
    headers = ((name, "a"), (name, "b"))
    assert kept(headers) == headers
    assert is_forwarded(name) is forwarded
    assert shown(headers) == (((name, MASK), (name, MASK)) if masked else headers)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("name", "values"),
    [("x-forwarded-from", ["chatwoot-test"]), ("x-relay-test", ["post", "true"]), ("traceparent", [TRACE])],
)
def test_a_mark_is_stored_only_with_a_value_of_its_form(name: str, values: list[str]) -> None:
    wrong = ["Bearer s3cret", "", f"{values[0]} s3cret"]
    assert kept(tuple((name, value) for value in [*values, *wrong])) == tuple((name, value) for value in values)
    assert not is_forwarded(name)
