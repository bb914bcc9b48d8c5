"""Reads the values of settings: each function returns what a variable's text means, or raises ValueError.

Messages say what the value must be, without quoting secrets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit, urlunsplit

import psycopg

from relay import dsn as dsns
from relay.domain.alerts import Severity
from relay.text import escaped

if TYPE_CHECKING:
    from pydantic import SecretStr


def http_url(value: str) -> str:
    """`value` without trailing slashes, if it is an http(s) URL with a host and no query.

    Raises ValueError otherwise.
    """
    try:
        parts = urlsplit(value.strip())
    except ValueError:  # its message quotes credentials
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL such as https://host or http://host:port")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port must be a number from 1 to 65535") from None
    if port == 0:
        raise ValueError("its port must be a number from 1 to 65535")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    if "@" in parts.path:
        raise ValueError("must have / and @ in its password percent-encoded (%2F, %40)")
    if any(ord(c) <= 32 for c in parts.netloc + parts.path):
        raise ValueError("must not contain spaces or control characters")
    if not _PLAIN_URL.fullmatch(value.strip()):
        _refuse_if_not_callable(value.strip())
    return value.strip().rstrip("/")


def _refuse_if_not_callable(url: str) -> None:
    """Raises ValueError if the HTTP client cannot call a URL: its host is no address, or no name in IDNA."""
    import httpx  # noqa: PLC0415 - it costs more than all of `relay status`; few hosts are not plain

    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"is not a URL that can be called ({error})") from None


_PLAIN_URL = re.compile(
    r"https?://(?:127\.0\.0\.1|(?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z][A-Za-z0-9-]{0,62})(?::[0-9]{1,5})?(?:/[\x21-\x7e]*)?"
)
"""A URL that every HTTP client can call: its host is a name in ASCII and no address, or this machine."""


def split_bind(value: str) -> tuple[str, int]:
    """`("127.0.0.1", 8788)` from `"127.0.0.1:8788"`; IPv6 hosts are written in brackets.

    Raises ValueError if it is not `host:port`.
    """
    host, colon, port = value.strip().rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port, for example 127.0.0.1:8788")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("write an IPv6 host in brackets, for example [::1]:8788")
    return host.strip("[]"), int(port)


def parts_of(url: str) -> SplitResult:
    """The parts of a URL from outside; all empty if it cannot be split."""
    try:
        return urlsplit(url)
    except ValueError:  # as in http://[::1
        return urlsplit("")


def api_key(value: SecretStr) -> SecretStr:
    """An API key without the blanks around it that copying brings.

    Raises ValueError if a header cannot carry it.
    """
    key = value.get_secret_value().strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("holds characters that no API key has; copy it again")
    return type(value)(key)


def without_credentials(url: str) -> str:
    """`url` without `user:password@`, and with `?…` for its query: the form that logs, facts and screens may show."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return without_what_may_be_secret(url)
    query = "…" if parts.query or parts.fragment else ""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment=""))


def without_what_may_be_secret(value: str) -> str:
    """A `value` that is no URL although it was meant as one, without all that may be credentials or a query."""
    scheme, slashes, rest = value.rpartition("://")
    rest = rest.rpartition("@")[2]
    kept = re.split("[?#]", rest, maxsplit=1)[0]
    return scheme.rpartition("@")[2] + slashes + kept + ("?…" if kept != rest else "")


def split_urls(value: SecretStr) -> tuple[str, ...]:
    """The URLs of a list that commas or spaces separate."""
    return tuple(re.split(r"[\s,]+(?=https?://)", value.get_secret_value().strip()))


def split_secrets(value: SecretStr | None) -> tuple[bytes, ...]:
    """The secrets of a list that commas separate; none for None."""
    if value is None:
        return ()
    return tuple(part.strip().encode() for part in value.get_secret_value().split(",") if part.strip())


_STATUSES = ("open", "pending", "snoozed", "resolved")
_ASSIGNMENTS = {"assigned": True, "unassigned": False}


def split_conditions(value: str) -> tuple[frozenset[str], bool | None]:
    """The conversation statuses of `AGENT_DRAFT_WHEN`, and whether it must be assigned (None: either)."""
    names = {name.strip().lower() for name in value.split(",") if name.strip()} - {"always"}
    if unknown := sorted(names - {*_STATUSES, *_ASSIGNMENTS}):
        raise ValueError(f"{escaped(unknown[0])} is none of always, {', '.join([*_STATUSES, *_ASSIGNMENTS])}")
    wanted = {_ASSIGNMENTS[name] for name in names if name in _ASSIGNMENTS}
    return frozenset(names & {*_STATUSES}), wanted.pop() if len(wanted) == 1 else None


def split_inboxes(value: str) -> frozenset[int]:
    """The inbox ids of a list that commas separate."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    if unknown := [name for name in names if not (name.isascii() and name.isdigit() and 0 < int(name) < 2**63)]:
        raise ValueError(
            f"{escaped(unknown[0])} is no inbox id; ids are numbers, as in the inbox's address in Chatwoot"
        )
    return frozenset(int(name) for name in names)


def split_severities(value: str) -> frozenset[Severity]:
    """The severities of a list that commas separate."""
    known = {severity.value.lower(): severity for severity in Severity}
    names = [name.strip().lower() for name in value.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{escaped(unknown[0])} is none of {', '.join(Severity)}")
    return frozenset(known[name] for name in names)


FACTS_TABLE = ".dashboard_facts"
_NOT_A_DSN = (
    "must be a connection string such as postgresql://user@host:5432/database "
    "(with / and @ in a password as %2F and %40)"
)


def fault_of_dsn(text: str) -> str:
    """Why it is no connection string that Postgres's client library reads, with ports that are numbers; else empty.

    A password in a URL must have `@` and `/` percent-encoded: a part of it would else count as the host or the
    database, which are shown.
    """
    scheme, slashes, rest = text.strip().partition("://")
    if slashes and scheme in {"postgresql", "postgres"}:
        authority, _, path = rest.partition("?")[0].partition("/")
        if authority.count("@") > 1 or "@" in path:
            return _NOT_A_DSN
    if unknown := dsns.unknown_parameters(text):
        names = ", ".join(escaped(name) for name in unknown)
        return f"Postgres knows no such parameter, remove it: {names}{_instead(unknown)}"
    try:
        given = dsns.parse(text)[0]
    except psycopg.ProgrammingError:
        return _NOT_A_DSN
    are_numbers = all(port.isascii() and port.isdigit() for port in str(given.get("port") or 5432).split(",") if port)
    if not are_numbers:
        return _NOT_A_DSN
    is_number = re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", str(given.get("connect_timeout") or 0), re.ASCII)
    return "" if is_number else "its connect_timeout must be a whole number of seconds"


_INSTEAD = {
    "schema": "RELAY_FACTS_TABLE=SCHEMA.dashboard_facts names a schema",
    "connection_limit": "a relay worker uses up to 8 connections",
}


def _instead(unknown: list[str]) -> str:
    return "".join(f"; {_INSTEAD[name]}" for name in unknown if name in _INSTEAD)
