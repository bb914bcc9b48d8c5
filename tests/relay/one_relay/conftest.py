"""Modules here share one relay, its agent and its database, which are emptied between the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from relay.demo.agent import AgentStandIn
    from tests.servers import Rows, RunningRelay


@pytest.fixture
def relay(shared_relay: RunningRelay, emptied_rows: Rows, emptied_agent: AgentStandIn) -> RunningRelay:
    """The module's relay, as if nothing had been sent to it yet."""
    return shared_relay


@pytest.fixture
def agent(emptied_agent: AgentStandIn) -> AgentStandIn:
    """Its agent."""
    return emptied_agent


@pytest.fixture
def rows(emptied_rows: Rows) -> Rows:
    """Its database."""
    return emptied_rows
