"""`relay diagnose` before a Chatwoot that is set up wrongly: its first line names what, its remedy says what to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from relay.demo.chatwoot import Oddity
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.conftest import CommandLine
    from tests.servers import HeldAgent, Rows, RunningRelay

    StartRelay = Callable[..., Awaitable[RunningRelay]]

KNOWN = "the-known-secret"
PATH = "/api/webhooks/chatwoot"


@dataclass(frozen=True, slots=True)
class Case:
    """How Chatwoot is set up, what is sent, and what the first line and the rest say.

    `webhook` is the URL in Chatwoot, `{relay}` the relay's. `quiet`: nothing has come yet.
    """

    name: str
    first: str
    rest: str = ""
    webhook: str = "{relay}" + PATH
    version: str = "4.13.2"
    oddities: tuple[Oddity, ...] = ()
    secret: str = KNOWN
    subscriptions: tuple[str, ...] = ("message_created", "conversation_status_changed")
    env: dict[str, str] = field(default_factory=dict)
    quiet: bool = False
    sends: bool = False


WELL = "Nothing is failing. No dead letter waits."
CASES = [
    Case("all is well", WELL, "Chatwoot's version: 4.13.2"),
    Case("a slash at the end", WELL, "✓ Chatwoot has a webhook that points here", webhook="{relay}" + PATH + "/"),
    Case("a query", WELL, "✓ Chatwoot has a webhook that points here", webhook="{relay}" + PATH + "?from=chatwoot"),
    Case("by another name", WELL, "✓ Chatwoot has a webhook that points here", webhook="{localhost}" + PATH),
    Case("two senders", WELL, "2 senders point here", oddities=(Oddity.API_INBOX_TOO,), env={"BOTH": "1"}),
    Case("header names with underscores dropped", WELL, oddities=(Oddity.UNDERSCORES_DROPPED,)),
    # the key and the address
    Case("a wrong key", "Chatwoot cannot be asked: Chatwoot answered 401: it does not know this key",
         "Check CHATWOOT_API_KEY", env={"CHATWOOT_API_KEY": "wrong"}),
    Case("an agent's key",
         "Chatwoot cannot be asked: Chatwoot answered 401: this key is not an administrator's: it cannot list webhooks",
         "access token of an administrator", env={"CHATWOOT_API_KEY": "demo-agent-key"}),
    Case("a bot's key", "Chatwoot cannot be asked: Chatwoot answered 401: this key is an agent bot's",
         "access token of an administrator", env={"CHATWOOT_API_KEY": "demo-bot-key"}),
    Case("another account", "Chatwoot cannot be asked: Chatwoot answered 401: this key has no access to that account",
         "Check CHATWOOT_ACCOUNT_ID", env={"CHATWOOT_ACCOUNT_ID": "2"}),
    Case("no such account", "Chatwoot cannot be asked: Chatwoot answered 404: this key has no access to that account",
         "Check CHATWOOT_ACCOUNT_ID", env={"CHATWOOT_ACCOUNT_ID": "99"}),
    Case("a suspended account", "Chatwoot cannot be asked: Chatwoot answered 401: the account is suspended",
         "super admin console", oddities=(Oddity.SUSPENDED,)),
    Case("a page of the app", "Chatwoot cannot be asked: Chatwoot answered 200 with a web page",
         "CHATWOOT_BASE_URL is a page of the app: set it to http://", env={"CHATWOOT_BASE_URL": "{chatwoot}/app"}),
    Case("a login page", "Chatwoot cannot be asked: Chatwoot answered 200 with a web page", "without a login page",
         oddities=(Oddity.LOGIN_PAGE,)),
    Case("a redirect", "Chatwoot cannot be asked: Chatwoot answered 301, a redirect to https://127.0.0.1",
         "Set CHATWOOT_BASE_URL to https://127.0.0.1", oddities=(Oddity.REDIRECTED,)),
    Case("no such host", "Chatwoot's health check fails: /rails/health (dns_failure)", "1. Check the host in CHATWOOT_",
         env={"CHATWOOT_BASE_URL": "http://no-such-host.invalid"}),
    Case("https where http is spoken", "Chatwoot's health check fails: /rails/health (tls_error)", "1. Check http or",
         env={"CHATWOOT_BASE_URL": "{chatwoot_https}"}),
    Case("something else there", "Chatwoot's health check fails: /health (200, not what Chatwoot answers)",
         "1. Check CHATWOOT_BASE_URL: something else", env={"CHATWOOT_BASE_URL": "{relay}"}),
    Case("a key with blanks around it", WELL, env={"CHATWOOT_API_KEY": " demo-api-key\n"}),
    Case("nothing there", "Chatwoot's health check fails: /rails/health (connection_refused)", "1. Check that Chatwoot",
         env={"CHATWOOT_BASE_URL": "http://127.0.0.1:9"}),
    # what sends webhooks
    Case("no webhook", "No webhook has ever come: none of Chatwoot's webhooks points to {relay}" + PATH + " (none",
         "Update the webhook URL", webhook="", quiet=True),
    Case("another host's path", "No webhook has ever come: none of Chatwoot's webhooks points to", "Update the webhook",
         webhook="https://elsewhere.example/hook", quiet=True),
    Case("a wrong path", 'No webhook has ever come: Chatwoot\'s webhook "relay" calls {relay}/webhooks/chatwoot, a',
         "the right one is " + PATH, webhook="{relay}/webhooks/chatwoot", quiet=True),
    Case("https to a relay that speaks http", 'No webhook has ever come: Chatwoot\'s webhook "relay" calls https://127.',
         "and the relay speaks http there; the right one is {relay}/", webhook="{relay_https}" + PATH, quiet=True),
    Case("no URL at all", "No webhook has ever come: none of Chatwoot's webhooks points to {relay}" + PATH + " (http://[",
         "Update the webhook URL", webhook="http://[::1" + PATH, quiet=True),
    Case("a path in escapes", WELL, "✓ Chatwoot has a webhook that points here",
         webhook="{relay}/api/webhooks/%63hatwoot"),
    Case("an event is missing", "Chatwoot's webhook does not send message_created.", "events message_created and",
         subscriptions=("conversation_status_changed",)),
    Case("the filter of private addresses", "No webhook has ever come: {relay}" + PATH + " is a private address, and"
         " Chatwoot 4.17.0 sends to none (since 4.14) unless SAFE_FETCH_ALLOW_PRIVATE_NETWORK=true is set",
         "has no public ip addresses", version="4.17.0", oddities=(Oddity.PRIVATE_ADDRESSES_REFUSED,), quiet=True,
         sends=True),
    Case("a private address of another host", "No webhook has ever come: http://10.0.0.5:8788" + PATH + " is a private",
         "give the relay a public address", webhook="http://10.0.0.5:8788" + PATH, version="4.14.0", quiet=True),
    Case("Redis is away", "No webhook has ever come: Chatwoot's queue_services are failing", "1. Start Chatwoot's",
         oddities=(Oddity.QUEUE_FAILING,), quiet=True),
    # secrets and signatures
    Case("another secret, nothing sent yet", 'Chatwoot\'s webhook "relay" signs with a secret that CHATWOOT_WEBHOOK',
         "fly secrets set", secret="another"),
    Case("an agent bot's secret", 'Chatwoot\'s agent bot "Bot" signs with a secret that CHATWOOT_WEBHOOK_SECRET',
         "one for each webhook, agent bot and API inbox", oddities=(Oddity.AGENT_BOT_TOO,)),
    Case("an API inbox's secret", 'Chatwoot\'s API inbox "Acme Support" signs with a secret', "✓ Chatwoot has an API",
         oddities=(Oddity.API_INBOX_TOO,)),
    Case("too old to sign", 'Chatwoot 4.10.0 does not sign what its webhook "relay" sends', "all of it is refused",
         version="4.10.0"),
    Case("another secret", "1 webhook refused (401, bad signature)",
         "signs with a secret that CHATWOOT_WEBHOOK_SECRET does not hold", secret="another", sends=True),
    Case("an automation rule", "1 webhook refused (401, automation rules and macros do not sign)",
         "Chatwoot never signs what automation rules and macros send", oddities=(Oddity.AUTOMATION_TOO,), sends=True),
    Case("a proxy that re-encodes", "1 webhook refused (401, body re-encoded after it was signed)",
         "pass the body on byte for byte", oddities=(Oddity.BODIES_REENCODED,), sends=True),
    # what was refused otherwise
    Case("a wrong path that was tried", 'Chatwoot\'s webhook "relay" calls {relay}' + PATH + "/hook, a path that the",
         "Correct the URL in Chatwoot's settings", webhook="{relay}" + PATH + "/hook", sends=True),
    Case("a mail that is too large", "1 webhook refused (413, body too large) since",
         "Raise CHATWOOT_WEBHOOK_MAX_BODY_BYTES", env={"LARGE": "1"}, sends=True),
]  # fmt: skip


async def prepare(
    case: Case, relay: RunningRelay, agent: HeldAgent, chatwoot: ChatwootStandIn, rows: Rows
) -> dict[str, str]:
    """Set everything up as the case says, send what it sends; the environment of the command."""
    urls = {"relay": relay.url, "localhost": relay.url.replace("127.0.0.1", "localhost"), "chatwoot": chatwoot.url}
    urls |= {f"{name}_https": urls[name].replace("http://", "https://") for name in ("relay", "chatwoot")}
    await rows.change("TRUNCATE dashboard_facts, relay.deliveries CASCADE")
    chatwoot.conversations = {7: []}
    chatwoot.oddities, chatwoot.version = set(case.oddities), case.version
    chatwoot.secret, chatwoot.subscriptions = case.secret.encode(), case.subscriptions
    if not case.quiet:
        good, chatwoot.secret = chatwoot.secret, KNOWN.encode()
        chatwoot.webhook_url, chatwoot.oddities, chatwoot.version = relay.url + PATH, set(), "4.13.2"
        await chatwoot.post(chatwoot.payload_of(chatwoot.add_message(7, "hi")))
        chatwoot.secret, chatwoot.oddities, chatwoot.version = good, set(case.oddities), case.version
    chatwoot.webhook_url = case.webhook.format(**urls)
    if case.sends:
        await chatwoot.deliver(chatwoot.add_message(7, "x < y " * (60_000 if "LARGE" in case.env else 1)))
    if case.sends and not case.quiet:
        await until(lambda: rows.facts("support.webhook.rejected"))
    secrets = [KNOWN, chatwoot.inbox_secret.decode()] if "BOTH" in case.env else [KNOWN]
    env = {
        "AGENT_SDK_URL": agent.url, "RELAY_URL": relay.url, "CHATWOOT_BASE_URL": chatwoot.url,
        "CHATWOOT_API_KEY": chatwoot.api_key, "CHATWOOT_ACCOUNT_ID": "1", "CHATWOOT_WEBHOOK_SECRET": ",".join(secrets),
    }  # fmt: skip
    return env | {name: value.format(**urls) for name, value in case.env.items() if name.startswith("CHATWOOT_")}


@pytest.mark.slow
async def test_the_first_line_names_what_is_set_up_wrongly(
    start_relay: StartRelay, agent: HeldAgent, chatwoot: ChatwootStandIn, relay_command: CommandLine, rows: Rows
) -> None:
    secrets = f"{KNOWN},{chatwoot.inbox_secret.decode()}"
    relay = await start_relay(chatwoot_webhook_secret=secrets, chatwoot_webhook_max_body_bytes=200_000)
    wrong: list[Any] = []
    for case in CASES:
        env = await prepare(case, relay, agent, chatwoot, rows)
        ended = await relay_command.run("diagnose", **env)
        first = ended.stdout.partition("\n")[0]
        status = 0 if case.first == WELL else 1
        expected, rest = (text.format(relay=relay.url) for text in (case.first, case.rest))
        if not first.startswith(expected) or rest not in ended.stdout or ended.returncode != status:
            wrong.append((case.name, ended.stdout, ended.stderr))
    assert wrong == [], "\n\n".join("\n".join(map(str, one)) for one in wrong)


async def test_a_window_without_a_relay_is_found_until_it_is_filled(
    start_relay: StartRelay, agent: HeldAgent, chatwoot: ChatwootStandIn, relay_command: CommandLine, rows: Rows
) -> None:
    first = await start_relay()
    posted = [chatwoot.add_message(7, f"before {number}", created_at=1_000) for number in range(30)]
    await asyncio.gather(*(first.post(chatwoot.payload_of(message)) for message in posted))
    await first.stop()
    rows("UPDATE relay.instances SET started_at = now() - interval '5 hours', heartbeat_at = now() - interval '30 min'")
    missed = chatwoot.add_message(7, "while it was down")
    relay = await start_relay()
    env = {
        "AGENT_SDK_URL": agent.url, "RELAY_URL": relay.url, "CHATWOOT_BASE_URL": chatwoot.url,
        "CHATWOOT_API_KEY": chatwoot.api_key, "CHATWOOT_ACCOUNT_ID": "1",
    }  # fmt: skip
    chatwoot.webhook_url = relay.url + PATH
    ended = await relay_command.run("diagnose", **env)
    assert ended.stdout.startswith("No relay ran from ")
    assert ended.returncode == 1
    command = ended.stdout.partition("Chatwoot: relay ")[2].partition(" --dry-run")[0].split()
    assert command[0] == "backfill"
    filled = await relay_command.run(*command, "--yes", **env)
    assert filled.returncode == 0, filled.stderr
    assert agent.seen[-1].delivery_id == f"backfill-1-{missed['id']}"
    ended = await relay_command.run("diagnose", **env)
    assert ended.stdout.startswith(WELL), ended.stdout
