"""Networks of trusted proxies, and the address of a client behind them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MOST_HOPS = 32


def parse_networks(text: str) -> tuple[Network, ...]:
    """The networks in a list such as `10.0.0.0/8, ::1`, whose items are separated by commas.

    Raises:
        ValueError: an item is neither an address nor a network; the message quotes it.
    """
    networks: list[Network] = []
    for name in (part.strip() for part in text.split(",")):
        try:
            networks += [ipaddress.ip_network(name, strict=False)] if name else []
        except ValueError:
            raise ValueError(f"{name!r} is no address or network such as 10.0.0.0/8") from None
    return tuple(networks)


def client_address(peer: str | None, forwarded_for: Iterable[str], trusted: tuple[Network, ...]) -> str | None:
    """The address that a request came from; None if it is not known.

    `peer` is the other end of the connection, `forwarded_for` the values of `X-Forwarded-For`. They are believed from
    the right, and only as far as each address that reports the next one is in a `trusted` network: any client can send
    the header.
    """
    address = peer
    claims = [part.strip() for value in forwarded_for for part in value.split(",")][-_MOST_HOPS:]
    while claims and address is not None and _is_in(address, trusted):
        claim = _parsed(claims.pop())
        if claim is None:
            break
        address = str(claim)
    return address


def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in `text`, which may have a port or brackets; an IPv4 address in IPv6 form as IPv4."""
    host = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
