"""Sends notifications to where `RELAY_ALERT_WEBHOOK_URL` says. An address and a key are secrets and are never logged.

The kind of a channel follows from its host, or from `RELAY_ALERT_FORMAT`. A key is `RELAY_ALERT_KEY`, or is in the
address: as the user of `https://KEY@events.pagerduty.com`, or as the query's `routing_key` or `api_key`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import httpx

from relay import http_client
from relay.domain.notifications import AlertFormat, for_opsgenie, for_pagerduty, for_slack
from relay.domain.retry import failure_of
from relay.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.domain.notifications import Message
    from relay.settings import Settings

TIMEOUT_S = 10
_HOSTS = {"pagerduty.com": AlertFormat.PAGERDUTY, "opsgenie.com": AlertFormat.OPSGENIE}
_PATHS = {AlertFormat.PAGERDUTY: "/v2/enqueue", AlertFormat.OPSGENIE: "/v2/alerts"}
_KEYS = {AlertFormat.PAGERDUTY: "PagerDuty's routing key", AlertFormat.OPSGENIE: "Opsgenie's API key"}
_KEY_NAMES = ("routing_key", "api_key", "key")


@dataclass(frozen=True, slots=True)
class Channel:
    """One address that notifications go to. `url` holds no key of PagerDuty or Opsgenie any more."""

    format: AlertFormat
    url: str = field(repr=False)
    key: str = field(repr=False, default="")

    async def send(self, message: Message) -> str | None:
        """Send a notification; None on success, else the reason, without the address."""
        url, body, headers = self._request(message)
        try:
            async with http_client.client(timeout=TIMEOUT_S) as client:
                answer = await client.post(url, json=body, headers=headers)
        except httpx.HTTPError as error:
            return str(failure_of(error))
        return None if answer.is_success else f"answered {answer.status_code}"

    def _request(self, message: Message) -> tuple[str, dict[str, Any], dict[str, str]]:
        if self.format is AlertFormat.SLACK:
            return self.url, for_slack(message), {}
        if self.format is AlertFormat.PAGERDUTY:
            return self.url, for_pagerduty(message, self.key), {}
        authorization = {"Authorization": f"GenieKey {self.key}"}
        if message.raised:
            return self.url, for_opsgenie(message), authorization
        alias = quote(message.key, safe="")
        return f"{self.url}/{alias}/close?identifierType=alias", for_opsgenie(message), authorization


def channels(settings: Settings) -> list[Channel]:
    """The channels that are configured; none if `RELAY_ALERT_WEBHOOK_URL` is not set.

    Raises:
        ConfigurationError: PagerDuty or Opsgenie has no key.
    """
    key = settings.relay_alert_key
    given = "" if key is None else key.get_secret_value()
    chosen = settings.relay_alert_format
    return [_channel(url, None if chosen is None else AlertFormat(chosen), given) for url in settings.alert_urls]


def _channel(url: str, chosen: AlertFormat | None, key: str) -> Channel:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    by_host = next((kind for name, kind in _HOSTS.items() if host == name or host.endswith(f".{name}")), None)
    kind = chosen or by_host or AlertFormat.SLACK
    if kind is AlertFormat.SLACK:
        return Channel(kind, url)
    query = parse_qsl(parts.query)
    key = key or next((value for name, value in query if name in _KEY_NAMES), "") or unquote(parts.username or "")
    if not key and by_host is not None:  # a gateway of one's own may add it
        raise ConfigurationError(f"RELAY_ALERT_KEY: not set; {_KEYS[kind]} ({host}) goes there, or into the address")
    rest = urlencode([(name, value) for name, value in query if name not in _KEY_NAMES])
    path = parts.path.rstrip("/") or _PATHS[kind]
    netloc = parts.netloc.rpartition("@")[2]
    return Channel(kind, urlunsplit((parts.scheme, netloc, path, rest, "")), key)


async def send_to_all(found: Sequence[Channel], message: Message) -> list[str]:
    """Send to every channel; the reasons of those that failed."""
    reasons = [await channel.send(message) for channel in found]
    return [f"{channel.format}: {why}" for channel, why in zip(found, reasons, strict=True) if why is not None]
