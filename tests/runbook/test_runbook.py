"""The runbook's statements hold: each row of the table is tried against a relay, an agent, a Chatwoot and Postgres."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from relay.demo.agent import Mode
from relay.demo.chatwoot.oddities import Oddity
from relay.domain.alerts import rule_named
from relay.domain.retry import Failure, verdict_of_failure, wait_ms
from relay.settings import Settings, load_settings
from tests.runbook import sql
from tests.runbook.statements import ELSEWHERE, STATEMENTS
from tests.servers import ROOT, Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.conftest import CommandLine
    from tests.servers import HeldAgent, Rows, RunningRelay

CURL = {
    "event": "message_created",
    "id": 12345,
    "content": "Test message",
    "message_type": 0,
    "conversation": {"id": 1},
}


class Scene:
    """Carries out a statement's command; returns what came of it."""

    def __init__(
        self, relay: RunningRelay, signed: RunningRelay, hurried: RunningRelay, agent: HeldAgent,
        chatwoot: ChatwootStandIn, rows: Rows, command: CommandLine,
    ) -> None:  # fmt: skip
        self._relay, self._signed, self._hurried = relay, signed, hurried
        self._agent, self._chatwoot = agent, chatwoot
        self._rows, self._command = rows, command
        self._posted = 0

    async def outcome(self, command: str) -> str:
        """What comes of the command."""
        name, _, rest = command.partition(" ")
        ways: dict[str, Callable[[str], Awaitable[str]]] = {
            "default": self._default, "wait": self._wait, "post": self._post, "post-unsigned": self._post_unsigned,
            "curl": self._curl, "agent": self._answered, "failure": self._failure, "log": self._log, "sql": self._sql,
            "alert": self._alert, "relay": self._program,
        }  # fmt: skip
        return await ways[name](rest)

    async def _default(self, name: str) -> str:
        default = Settings.model_fields[name.lower()].default
        return default if isinstance(default, str) else f"{default:g}"

    async def _wait(self, failed: str) -> str:
        return f"{wait_ms(load_settings(_env_file=None).retry_policy, int(failed), None):g} ms"

    async def _post(self, _: str) -> str:
        return str((await self._relay.post(self._payload())).status_code)

    async def _post_unsigned(self, _: str) -> str:
        answer = await self._signed.post(self._payload())
        return f"{answer.status_code} {answer.text.replace(': ', ':').strip()}"

    async def _curl(self, _: str) -> str:
        return str((await self._relay.post(CURL, X_Forwarded_From="chatwoot-test")).status_code)

    async def _answered(self, how: str) -> str:
        if how == "refused":
            await self._agent.refuse()
        else:
            self._agent.behave(Behaviour(mode=Mode.HANG) if how == "hang" else Behaviour(status=int(how)))
        relay = self._hurried if how == "hang" else self._relay
        answer = await relay.post(self._payload())
        await self._agent.accept()
        self._agent.behave()
        said = answer.json()
        facts = self._rows(
            "SELECT fact_type FROM dashboard_facts WHERE metadata ->> 'deliveryId' = %s ORDER BY 1",
            (said["delivery_id"],),
        )
        return f"{answer.status_code} after {said['attempts']} attempts: {', '.join(facts)}" + (
            "; retryable" if said.get("retryable") else ""
        )

    async def _failure(self, name: str) -> str:
        return "retried" if verdict_of_failure(Failure(name), timeout_ms=1).retryable else "not retried"

    async def _log(self, _: str) -> str:
        await self._relay.post(self._payload())
        await until(lambda: "forwarded successfully" in self._relay.output)
        return self._relay.output

    async def _sql(self, name: str) -> str:
        return str(self._rows(getattr(sql, name)))

    async def _alert(self, name: str) -> str:
        rule = rule_named(name)
        return f"{rule.severity}: {rule.condition}"

    async def _program(self, arguments: str) -> str:
        env = {
            "AGENT_SDK_URL": self._agent.url, "RELAY_URL": self._relay.url, "CHATWOOT_BASE_URL": self._chatwoot.url,
            "CHATWOOT_API_KEY": self._chatwoot.api_key, "CHATWOOT_ACCOUNT_ID": str(self._chatwoot.account_id),
        }  # fmt: skip
        return (await self._command.run(*arguments.split(), **env)).stdout

    def _payload(self) -> dict[str, Any]:
        self._posted += 1
        return {"event": "message_created", "id": self._posted, "message_type": "incoming"}


async def test_every_statement_of_the_runbook_holds(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    agent: HeldAgent,
    chatwoot: ChatwootStandIn,
    rows: Rows,
    relay_command: CommandLine,
) -> None:
    chatwoot.oddities = {Oddity.RAILS_HEALTH}  # this Chatwoot has the runbook's route
    relay, signed = await start_relay(), await start_relay(chatwoot_webhook_secret="the secret")
    hurried = await start_relay(agent_sdk_timeout_ms=100)
    scene = Scene(relay, signed, hurried, agent, chatwoot, rows, relay_command)
    programs = [row for row in STATEMENTS if row.command.startswith("relay ")]
    outcomes = [(row, await scene.outcome(row.command)) for row in STATEMENTS if row not in programs]
    ended = await asyncio.gather(*(scene.outcome(row.command) for row in programs))
    wrong = {}
    for row, outcome in [*outcomes, *zip(programs, ended, strict=True)]:
        expected = row.expected
        holds = outcome == expected if isinstance(expected, str) else all(part in outcome for part in expected)
        if not holds:
            wrong[f"{row.chapter}: {row.statement}"] = outcome
    assert wrong == {}


def test_the_tests_that_hold_the_others_exist() -> None:
    assert [path for path in ELSEWHERE.values() if not (ROOT / path).exists()] == []
