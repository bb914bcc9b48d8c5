"""What `relay agent check` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.agent.contract import Check, ContractCheck, Result
from relay.commands.common import print_json, say
from relay.domain.format import plural
from relay.settings import without_credentials

if TYPE_CHECKING:
    from relay.settings import Settings


async def check_contract(settings: Settings, large_bytes: int, *, as_json: bool) -> int:
    """Check the Agent SDK at `settings.agent_sdk_url`, and print what was found; returns the exit status."""
    checks: list[Check] = []
    shown = without_credentials(settings.agent_sdk_url)
    if not as_json:
        say(f"Agent SDK: {shown}")
    async for one in ContractCheck(settings, large_bytes=large_bytes).run():
        checks.append(one)
        if not as_json:
            took = "" if one.took_ms is None else f"{one.took_ms} ms"
            say(f"  {one.result:<8} {one.name:<17} {took:>9}  {one.detail}")
    failed = sum(one.result is Result.FAILED for one in checks)
    warnings = sum(one.result is Result.WARNING for one in checks)
    if as_json:
        print_json({"agent": shown, "ok": not failed, "checks": [one.document for one in checks]})
    elif failed:
        say(f"{plural(failed, 'check')} failed. relay/AGENT.md has the contract.")
    else:
        say("Keeps to the contract" + (f", with {plural(warnings, 'warning')}." if warnings else "."))
    return 1 if failed else 0
