"""What it means that Postgres is away, and what to do, in place of the driver's words. Pure."""

from __future__ import annotations

from relay.errors import RelayError, StatementRefused, StoreUnavailable

_MEANINGS = (
    ("refused", "nothing listens at its address. Start Postgres, or correct DATABASE_URL"),
    ("resolve", "its host's name does not resolve. Correct DATABASE_URL, or DNS"),
    ("Name or service", "its host's name does not resolve. Correct DATABASE_URL, or DNS"),
    ("password", "it rejects the login. Correct DATABASE_URL"),
    ("authentication", "it rejects the login. Correct DATABASE_URL"),
    ("does not exist", "it has no such database or role. Correct DATABASE_URL"),
    ("starting up", "it is starting; wait"),
    ("shutting down", "it is shutting down; start it again"),
    ("terminat", "it ended the session, as in a restart; wait"),
    ("too many", "all of its connections are taken. End some, or raise max_connections"),
    ("remaining connection slots", "all of its connections are taken. End some, or raise max_connections"),
    ("timeout", "it does not answer in time. Check the network and its load"),
    ("in time", "it does not answer in time. Check the network and its load"),
    ("closed", "it ended the session, as in a restart; wait"),
)
"""What the driver's words mean, and what to do, by a part of them; the first that fits counts."""


def meaning_of(reason: str) -> str:
    """Return what `reason`, the text of a `StoreUnavailable`, means and what to do."""
    said = reason.lower()
    meaning = next((text for part, text in _MEANINGS if part.lower() in said), "")
    return meaning or f"{reason.partition(': ')[2] or reason}. Check it and DATABASE_URL"


def plainly(error: RelayError) -> str:
    """Return an error as it is said in passing: of Postgres that is away, what that means."""
    if isinstance(error, StoreUnavailable) and not isinstance(error, StatementRefused):
        return f"No session with Postgres: {meaning_of(str(error))}"
    return str(error)
