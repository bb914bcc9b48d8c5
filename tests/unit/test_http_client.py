"""The one policy of outgoing HTTP: which proxy a request takes, and how a numeric host is read."""

from __future__ import annotations

import httpx
import pytest

from relay.http_client import canonical_host, proxy_for

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
DIRECT = [
    ("*", "http://agent.example/"),
    ("agent.example", "http://agent.example/"),
    ("agent.example", "http://eu.agent.example/"),
    (".agent.example", "http://eu.agent.example/"),
    ("*.agent.example", "http://eu.agent.example/"),
    ("other, AGENT.example:8787", "http://agent.example:8787/"),
    ("127.0.0.1", "http://127.1:8787/"),
    ("10.0.0.0/8", "http://10.1.2.3/"),
    ("[::1]:8787", "http://[::1]:8787/"),
    ("::1", "http://[::1]:8787/"),
]
BY_PROXY = [
    ("", "http://agent.example/"),
    ("agent.example", "http://otheragent.example/"),
    ("agent.example:80", "http://agent.example:8787/"),
    ("10.0.0.0/8", "http://11.1.2.3/"),
    ("10.0.0.0/8", "http://agent.example/"),
    (",", "http://agent.example/"),
]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_no_proxy_exempts_names_networks_and_ports(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTP_PROXY", "proxy:3128")
    wrong = []
    for cases, expected in ((DIRECT, None), (BY_PROXY, "http://proxy:3128")):
        for no_proxy, url in cases:
            environment.setenv("NO_PROXY", no_proxy)
            if proxy_for(httpx.URL(url)) != expected:
                wrong.append((no_proxy, url))
    assert wrong == []


def test_the_proxy_is_that_of_the_scheme_or_of_all(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://secure:1")
    assert proxy_for(httpx.URL("http://agent.example")) is None
    environment.setenv("ALL_PROXY", "http://all:1")
    assert proxy_for(httpx.URL("http://agent.example")) == "http://all:1"
    assert proxy_for(httpx.URL("https://agent.example")) == "http://secure:1"


def test_a_numeric_host_is_read_as_the_resolver_reads_it() -> None:
    read = {
        host: canonical_host(host) for host in ("127.1", "0x7f.1", "127.0.0.1", "agent", "1.2.3.4.5", "::1", "dead")
    }
    assert read == {
        "127.1": "127.0.0.1", "0x7f.1": "127.0.0.1", "127.0.0.1": "127.0.0.1", "agent": "agent",
        "1.2.3.4.5": "1.2.3.4.5", "::1": "::1", "dead": "dead",
    }  # fmt: skip
