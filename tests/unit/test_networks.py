"""Whose `X-Forwarded-For` is believed, and how far."""

from __future__ import annotations

import pytest

from relay.domain.networks import client_address, parse_networks

TRUSTED = parse_networks("127.0.0.1, 10.0.0.0/8, ::1, fd00::/8")

CASES = {
    "no proxy is trusted": ("127.0.0.1", ["1.2.3.4"], (), "127.0.0.1"),
    "the peer is no proxy": ("8.8.8.8", ["1.2.3.4"], TRUSTED, "8.8.8.8"),
    "one proxy": ("127.0.0.1", ["1.2.3.4"], TRUSTED, "1.2.3.4"),
    "what the client claims stays a claim": ("127.0.0.1", ["10.9.9.9, 1.2.3.4"], TRUSTED, "1.2.3.4"),
    "two proxies, two headers": ("127.0.0.1", ["1.2.3.4", "10.0.0.7"], TRUSTED, "1.2.3.4"),
    "all are proxies": ("127.0.0.1", ["10.0.0.8, 10.0.0.7"], TRUSTED, "10.0.0.8"),
    "garbage ends it": ("127.0.0.1", ["1.2.3.4, unknown"], TRUSTED, "127.0.0.1"),
    "a port": ("127.0.0.1", ["1.2.3.4:5678"], TRUSTED, "1.2.3.4"),
    "IPv6 with a port": ("::1", ["[2001:db8::1]:5678"], TRUSTED, "2001:db8::1"),
    "IPv4 in IPv6 form": ("::ffff:127.0.0.1", ["1.2.3.4"], TRUSTED, "1.2.3.4"),
    "no header": ("127.0.0.1", [], TRUSTED, "127.0.0.1"),
    "no peer": (None, ["1.2.3.4"], TRUSTED, None),
}


def test_the_client_is_found_behind_trusted_proxies_alone() -> None:
    found = {name: client_address(peer, values, trusted) for name, (peer, values, trusted, _) in CASES.items()}
    assert found == {name: case[-1] for name, case in CASES.items()}


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'10\.0\.0\.0/99' is no address or network"):
        parse_networks("127.0.0.1, 10.0.0.0/99")
