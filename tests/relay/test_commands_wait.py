"""Commands that wait for another session say for whom, and their output stays theirs."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from tests.servers import locked, until

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.servers import Rows

_COMMANDS = [
    ("hold", "--reason", "a deploy"),
    ("release",),
    ("redirect", "--from", "http://blue", "--to", "http://green"),
    ("ack", "success-rate-p0", "--reason", "known"),
]
_HAVE_LOOKED = """
    WITH blocked AS (
        SELECT count(*) AS number, max(query_start) AS since FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'relay command' AND wait_event_type = 'Lock'
    )
    SELECT blocked.number = %(all)s AND (
           SELECT count(*) FROM pg_stat_activity a
            WHERE a.datname = current_database() AND a.application_name = 'relay waits' AND a.state = 'idle'
              AND a.query_start > blocked.since + interval '3 s') = %(all)s
      FROM blocked
"""
"""True once each command is blocked and asks by whom again: every two seconds, so that it has said so by then."""


async def test_a_command_that_waits_for_a_lock_names_its_holder_on_stderr(
    relay_command: CommandLine, rows: Rows
) -> None:
    rows("INSERT INTO relay.holds (operator, reason) VALUES ('maria', 'a deploy')")
    async with locked(rows.dsn, "relay.operator_actions"):
        commands = [asyncio.create_task(relay_command.run(*one, "--json")) for one in _COMMANDS]
        await until(lambda: rows.one(_HAVE_LOOKED, {"all": len(_COMMANDS)}), what="each has asked what blocks it")
    for arguments, ended in zip(_COMMANDS, await asyncio.gather(*commands), strict=True):
        assert "relay: Waiting for another session, which holds a lock: process" in ended.stderr, arguments
        assert json.loads(ended.stdout)["database"]["demo"] is False, arguments
