"""Where notifications go and what they say: each kind of channel as its service documents it, over real sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web

from relay.domain.notifications import AlertFormat
from relay.errors import ConfigurationError
from relay.monitoring.channels import channels
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import CommandLine

PAGERDUTY_KEY, OPSGENIE_KEY = "R0UTINGKEY", "genie-key"


class Receiver:
    """Stands for Slack, PagerDuty and Opsgenie: checks what they check, and keeps what was sent.

    PagerDuty: Events API v2, "Send an Alert Event" (202; 400 for what it does not know). Opsgenie: Alert API, "Create
    Alert" and "Close Alert" (202; 401 without a GenieKey; 422 for a message of more than 130 characters).
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.fetched = 0

    async def slack(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.seen.append(("slack", body))
        return web.Response(status=200 if isinstance(body.get("text"), str) else 400, text="ok")

    async def pagerduty(self, request: web.Request) -> web.Response:
        body = await request.json()
        payload = body.get("payload", {})
        good = (
            body.get("routing_key") == PAGERDUTY_KEY
            and body.get("event_action") in {"trigger", "acknowledge", "resolve"}
            and 0 < len(body.get("dedup_key", "")) <= 255
            and 0 < len(payload.get("summary", "")) <= 1024
            and payload.get("severity") in {"critical", "error", "warning", "info"}
            and payload.get("source")
        )
        self.seen.append(("pagerduty", body))
        return web.json_response({"status": "success"}, status=202 if good else 400)

    async def opsgenie(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"GenieKey {OPSGENIE_KEY}":
            return web.json_response({"message": "Could not authenticate"}, status=401)
        body = await request.json()
        alias = request.match_info.get("alias")
        if alias is None:
            good = 0 < len(body["message"]) <= 130 and len(body["alias"]) <= 512 and len(body["description"]) <= 15_000
            self.seen.append(("create", body))
        else:
            good = request.query.get("identifierType") == "alias"
            self.seen.append(("close", body | {"alias": alias}))
        return web.json_response({"result": "Request will be processed"}, status=202 if good else 422)


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/services/T0/B0/x", made.slack)
    app.router.add_post("/v2/enqueue", made.pagerduty)
    app.router.add_post("/v2/alerts", made.opsgenie)
    app.router.add_post("/v2/alerts/{alias}/close", made.opsgenie)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made
    await runner.cleanup()


def test_the_host_decides_the_kind_of_channel_and_holds_its_key() -> None:
    from relay.settings import load_settings  # noqa: PLC0415

    given = {
        "https://hooks.slack.com/services/T0/B0/x": (AlertFormat.SLACK, ""),
        "https://chat.example/hooks/abc?token=1": (AlertFormat.SLACK, ""),
        f"https://{PAGERDUTY_KEY}@events.pagerduty.com": (AlertFormat.PAGERDUTY, PAGERDUTY_KEY),
        f"https://events.eu.pagerduty.com/v2/enqueue?routing_key={PAGERDUTY_KEY}":
            (AlertFormat.PAGERDUTY, PAGERDUTY_KEY),
        f"https://api.opsgenie.com/v2/alerts?api_key={OPSGENIE_KEY}": (AlertFormat.OPSGENIE, OPSGENIE_KEY),
        f"https://{OPSGENIE_KEY}@api.eu.opsgenie.com": (AlertFormat.OPSGENIE, OPSGENIE_KEY),
    }  # fmt: skip
    for url, expected in given.items():
        (channel,) = channels(load_settings(relay_alert_webhook_url=url))
        assert (channel.format, channel.key) == expected, url
        assert channel.format is AlertFormat.SLACK or channel.key not in channel.url
    with pytest.raises(ConfigurationError, match=r"^RELAY_ALERT_KEY: not set; PagerDuty's routing key .* goes there"):
        channels(load_settings(relay_alert_webhook_url="https://events.pagerduty.com/v2/enqueue"))
    (chosen,) = channels(load_settings(relay_alert_webhook_url="http://pager.example", relay_alert_format="pagerduty",
                                       relay_alert_key="k"))  # fmt: skip
    assert (chosen.format, chosen.url, chosen.key) == (AlertFormat.PAGERDUTY, "http://pager.example/v2/enqueue", "k")
    two = channels(load_settings(relay_alert_webhook_url="https://a.example/x?y=1,2 https://b.example, http://c.d"))
    assert [channel.url for channel in two] == ["https://a.example/x?y=1,2", "https://b.example", "http://c.d"]


@pytest.mark.parametrize(
    ("path", "kind", "env"),
    [
        ("/services/T0/B0/x", "slack", {}),
        (f"/v2/enqueue?routing_key={PAGERDUTY_KEY}", "pagerduty", {"RELAY_ALERT_FORMAT": "pagerduty"}),
        ("", "opsgenie", {"RELAY_ALERT_FORMAT": "opsgenie", "RELAY_ALERT_KEY": OPSGENIE_KEY}),
    ],
    ids=["slack", "pagerduty", "opsgenie"],
)
async def test_a_test_sends_one_of_each_and_says_so(
    receiver: Receiver, relay_command: CommandLine, path: str, kind: str, env: dict[str, str]
) -> None:
    env = env | {"RELAY_ALERT_WEBHOOK_URL": receiver.url + path, "CONSOLE_ENVIRONMENT": "prod"}
    ended = await relay_command.run("alerts", "test", **env)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.splitlines()[:2] == [f"{kind}: P0 raised: sent", f"{kind}: P0 cleared: sent"]
    assert len(receiver.seen) == 8  # P0, P1, Critical and escalate
    for (_, raised), (_, cleared) in zip(receiver.seen[::2], receiver.seen[1::2], strict=True):
        for name, value in {"dedup_key": 1, "alias": 1}.items():
            assert value
            assert raised.get(name) == cleared.get(name)
    text = json.dumps(receiver.seen[0])
    for wanted in ("TEST: this is a test", "prod", "relay status", "success-rate-p0", "50 %"):
        assert wanted in text, wanted
    assert receiver.url not in ended.stdout


async def test_a_channel_that_refuses_is_said_without_its_address(
    receiver: Receiver, relay_command: CommandLine
) -> None:
    env = {"RELAY_ALERT_WEBHOOK_URL": receiver.url + "/v2/alerts", "RELAY_ALERT_FORMAT": "opsgenie"}
    ended = await relay_command.run("alerts", "test", RELAY_ALERT_KEY="another", RELAY_ALERT_SEVERITIES="P0", **env)
    assert ended.returncode == 1
    assert ended.stdout == "opsgenie: P0 raised: FAILED: answered 401\nopsgenie: P0 cleared: FAILED: answered 401\n"
    ended = await relay_command.run("alerts", "test")
    assert ended.returncode == 2
    assert "RELAY_ALERT_WEBHOOK_URL: not set" in ended.stderr
