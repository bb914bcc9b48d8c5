"""The one policy for outgoing HTTP: proxies, certificates, and how a numeric host is read.

Forwarding, probes, test webhooks, `relay agent check`, notifications and the reference agent share it, so that what a
probe reaches, forwarding reaches too.

- Proxies are those of HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, except for the hosts in NO_PROXY: names with their
  subdomains, addresses, networks such as 10.0.0.0/8, each with or without a port, or `*`. Lower-case names win.
- Certificates are verified against the system's store, or SSL_CERT_FILE and SSL_CERT_DIR where one is set. Where the
  system has no store, as in slim containers, the `certifi` package is used.
- `http://127.1:8787` is `http://127.0.0.1:8787`, as for the system's resolver.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies_environment

import certifi
import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

_WITH_PORT = re.compile(r"([^:]*|\[.*\]):([0-9]{1,5})")
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}", re.IGNORECASE)


def client(**options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` that follows the policy. `options` are its own, without `transport` and `trust_env`."""
    return httpx.AsyncClient(transport=PolicyTransport(), trust_env=False, **options)


def certificates() -> ssl.SSLContext:
    """What certificates are verified against."""
    return _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)  # reading the store takes some 20 ms
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()  # reads the system's store, or what the two variables name
    if not file and not folder and not _system_has_store():
        context.load_verify_locations(certifi.where())
    return context


def _system_has_store() -> bool:
    paths = ssl.get_default_verify_paths()
    if paths.cafile and Path(paths.cafile).is_file():
        return True
    folder = Path(paths.capath) if paths.capath else None
    return folder is not None and folder.is_dir() and any(folder.iterdir())


def proxy_for(url: httpx.URL) -> str | None:
    """The proxy of a request to `url`; None if it is made directly."""
    proxies = getproxies_environment()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or any(_exempts(name.strip().lower(), url) for name in proxies.get("no", "").split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _exempts(name: str, url: httpx.URL) -> bool:
    """True if `name`, one of NO_PROXY, takes `url` from the proxy."""
    host, port = canonical_host(url.host), url.port or {"https": 443}.get(url.scheme, 80)
    if found := _WITH_PORT.fullmatch(name):
        if int(found[2]) != port:
            return False
        name = found[1]
    name = name.strip("[]")
    try:
        network = ip_network(name, strict=False)
    except ValueError:
        if name == "*":
            return True
        name = name.removeprefix("*").removeprefix(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return ip_address(host) in network
    except ValueError:
        return False


def canonical_host(host: str) -> str:
    """`127.0.0.1` for `127.1`, as the system's resolver reads it; any other host as it is."""
    if not _NUMERIC.fullmatch(host):
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def _transport(proxy: httpx.Proxy | None) -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(verify=certificates(), proxy=proxy)


class PolicyTransport(httpx.AsyncBaseTransport):
    """Sends each request directly or by its proxy. `make` makes a transport: for a proxy, or for none."""

    def __init__(self, make: Callable[[httpx.Proxy | None], httpx.AsyncBaseTransport] = _transport) -> None:
        self._make = make
        self._by_proxy: dict[str | None, httpx.AsyncBaseTransport] = {}
        self._routes: dict[tuple[str, bytes], tuple[httpx.AsyncBaseTransport, str]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`.

        Raises:
            UnsupportedProtocol: its proxy is neither an http nor an https one.
        """
        url = request.url
        origin = (url.scheme, url.netloc)
        if origin not in self._routes:
            self._routes[origin] = (self._transport(proxy_for(url)), canonical_host(url.host))
        transport, host = self._routes[origin]
        if host != url.host:
            request.url = url.copy_with(host=host)
        return await transport.handle_async_request(request)

    def _transport(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = self._make(None if proxy is None else _proxy(proxy))
        return self._by_proxy[proxy]

    async def aclose(self) -> None:
        """Close the connections."""
        for transport in self._by_proxy.values():
            await transport.aclose()


def _proxy(url: str) -> httpx.Proxy:
    if not url.startswith(("http://", "https://")):
        raise httpx.UnsupportedProtocol("The proxy in the environment is neither an http:// nor an https:// one")
    return httpx.Proxy(url)
