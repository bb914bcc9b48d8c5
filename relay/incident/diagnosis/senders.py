"""What in Chatwoot sends webhooks, and whether its URL is the relay's as Chatwoot would call it. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING
from urllib.parse import unquote

from relay.chatwoot.client import Source
from relay.settings import parts_of, without_credentials

if TYPE_CHECKING:
    from relay.chatwoot.client import Webhook
    from relay.incident.evidence import Evidence

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_PORTS = {"http": 80, "https": 443}
_FILTERED_SINCE = (4, 14, 0)


class Place(Enum):
    """Where a URL leads."""

    HERE = auto()
    MAYBE_HERE = auto()  # the path is right; a proxy may listen at that address and forward to the relay
    WRONG_PATH = auto()  # a relay's address, and a path that the relay answers with 404
    WRONG_SCHEME = auto()  # a relay's address by https, which it does not speak
    ELSEWHERE = auto()


@dataclass(frozen=True, slots=True)
class Sender:
    """One sender of webhooks and where it leads.

    `private` is true if no address of its host is public, as far as its name resolves from here.
    """

    webhook: Webhook
    place: Place
    private: bool

    @property
    def is_account(self) -> bool:
        """True for a webhook of the account, not of an agent bot or an API inbox."""
        return self.webhook.source is Source.ACCOUNT

    @property
    def named(self) -> str:
        """`webhook "relay"`, `agent bot "Bot"`, `API inbox "Support"`."""
        return f'{self.webhook.source.value} "{self.webhook.name}"'

    @property
    def url(self) -> str:
        """The URL as it may be shown."""
        return without_credentials(self.webhook.url)

    def sends(self, event: str) -> bool:
        """True if it sends `event`. The events of agent bots and API inboxes cannot be chosen."""
        return self.webhook.subscriptions is None or event in self.webhook.subscriptions


def senders(evidence: Evidence) -> list[Sender]:
    """Chatwoot's senders of webhooks, those that surely lead here first."""
    found = [
        Sender(one, place_of(one.url, evidence), _is_private(one.url, evidence)) for one in evidence.webhooks or ()
    ]
    return sorted(found, key=lambda sender: sender.place.value)


def is_filtered(sender: Sender, evidence: Evidence) -> bool:
    """True if Chatwoot's private-address filter keeps it from sending, unless that is switched off (since 4.14)."""
    version = evidence.server
    return sender.private and (version is None or version.is_at_least(*_FILTERED_SINCE) is not False)


def place_of(url: str, evidence: Evidence) -> Place:
    """Where a webhook's URL leads. The relay takes its path with and without a slash at its end, and with a query.

    By another name, or at another host's ordinary port, a proxy may pass on to the relay. On the host that the relay
    is on, another port that is not an ordinary one belongs to something else.
    """
    (host, port), (own_host, own_port) = _address(url), _address(evidence.own_url)
    is_own_host = host == own_host or bool(evidence.addresses_of(host) & evidence.addresses_of(own_host))
    bound = {relay.name.rpartition(":")[2] for relay in evidence.overview.alive}
    is_own_port = port == own_port or str(port) in bound
    is_secure = parts_of(url).scheme == "https"
    if is_own_host and is_own_port and is_secure and parts_of(evidence.own_url).scheme == "http":
        return Place.WRONG_SCHEME
    if unquote(parts_of(url).path) not in {evidence.webhook_path, evidence.webhook_path + "/"}:
        return Place.WRONG_PATH if is_own_host and is_own_port else Place.ELSEWHERE
    if not is_own_host:
        return Place.MAYBE_HERE
    if is_own_port:
        return Place.HERE
    return Place.MAYBE_HERE if port in _PORTS.values() else Place.ELSEWHERE


def _address(url: str) -> tuple[str, int | None]:
    """Host and port of a URL, this machine by one name; no port where it names none that can be."""
    parts = parts_of(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        port = None
    host = (parts.hostname or "").rstrip(".")
    return "localhost" if host in _LOOPBACK else host, port


def _is_private(url: str, evidence: Evidence) -> bool:
    host = (parts_of(url).hostname or "").rstrip(".")
    addresses = evidence.addresses_of(host)
    return bool(addresses) and not any(ipaddress.ip_address(one.partition("%")[0]).is_global for one in addresses)
