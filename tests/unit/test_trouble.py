"""What is said of Postgres that is away: its meaning, not the driver's words."""

from __future__ import annotations

from console.render.trouble import plainly
from relay.errors import RelayError, StatementRefused, StoreUnavailable


def test_the_drivers_words_are_not_shown() -> None:
    refused = 'Postgres cannot be used now: connection to server at "10.0.0.1", port 5432 failed: Connection refused'
    said = plainly(StoreUnavailable(refused))
    assert said == ("No session with Postgres: nothing listens at its address. Start Postgres, or correct DATABASE_URL")
    assert "does not answer in time" in plainly(StoreUnavailable("Postgres did not answer in time"))
    assert plainly(StatementRefused("Postgres refused a statement: x")) == "Postgres refused a statement: x"
    assert plainly(RelayError("set PAGER")) == "set PAGER"
