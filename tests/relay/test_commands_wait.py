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
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'relay waits' AND state = 'idle'"


async def test_a_command_that_waits_for_a_lock_names_its_holder_on_stderr(
    relay_command: CommandLine, rows: Rows
) -> None:
    rows("INSERT INTO relay.holds (operator, reason) VALUES ('maria', 'a deploy')")
    async with locked(rows.dsn, "relay.operator_actions"):
        commands = [asyncio.create_task(relay_command.run(*one, "--json")) for one in _COMMANDS]
        await until(lambda: rows.one(_WAITING) == len(_COMMANDS), what="each command has looked for whom it waits")
    for arguments, ended in zip(_COMMANDS, await asyncio.gather(*commands), strict=True):
        assert "relay: Waiting for another session, which holds a lock: process" in ended.stderr, arguments
        assert json.loads(ended.stdout)["database"]["demo"] is False, arguments
