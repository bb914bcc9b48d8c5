"""Reads connection strings: libpq's parameters, and what other tools and the relay itself add to them. Pure.

Prisma and Supabase write `pgbouncer=true` into their strings, which libpq does not know. `with_choices` adds the
relay's own settings in the same way, so that one string carries all that a connection depends on. `plain` returns the
string that libpq, and so psql, reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

PGBOUNCER = "pgbouncer"
_FACTS = "relay_facts_schema"
_PAIR = re.compile(rf"(?:^|\s+)({PGBOUNCER}|{_FACTS})\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")
_TRANSACTION_PORT = "6543"  # Supavisor's, https://supabase.com/docs/guides/database/connecting-to-postgres
_SUPAVISOR = ".pooler.supabase.com"


@dataclass(frozen=True, slots=True)
class Choices:
    """What a connection string says besides libpq's parameters.

    `no_prepare` is true if a pooler is named that keeps no prepared statements, or the operator turned them off.
    `facts_schema` is the schema of `dashboard_facts`, None if the search path decides.
    """

    no_prepare: bool = False
    facts_schema: str | None = None


def parse(dsn: str) -> tuple[dict[str, Any], Choices]:
    """The parameters that libpq takes, and the other choices of `dsn`.

    Raises:
        psycopg.ProgrammingError: it is no connection string, or has an unknown parameter.
    """
    libpq, own = _split(dsn)
    parameters = conninfo_to_dict(libpq)
    pooled = own.get(PGBOUNCER, "").lower() in {"true", "1", "yes", "on"}
    supavisor = str(parameters.get("host") or "").endswith(_SUPAVISOR)
    by_transaction = supavisor and str(parameters.get("port") or "") == _TRANSACTION_PORT
    return parameters, Choices(pooled or by_transaction, own.get(_FACTS))


def plain(dsn: str) -> str:
    """`dsn` as libpq reads it."""
    return _split(dsn)[0]


def with_choices(dsn: str, choices: Choices) -> str:
    """`dsn` with `choices` added, to be read by `parse`."""
    added = {PGBOUNCER: "true"} if choices.no_prepare else {}
    if choices.facts_schema is not None:
        added[_FACTS] = choices.facts_schema
    if not added:
        return dsn
    libpq, own = _split(dsn)
    own |= added
    if _is_url(libpq):
        return libpq + ("&" if "?" in libpq else "?") + urlencode(own)
    quoted = (value.replace("\\", r"\\").replace("'", r"\'") for value in own.values())
    return " ".join([make_conninfo(libpq), *(f"{name}='{value}'" for name, value in zip(own, quoted, strict=True))])


def unknown_parameters(dsn: str) -> list[str]:
    """The names of the parameters in a URL's query that neither libpq nor the relay knows."""
    libpq, _ = _split(dsn)
    if not _is_url(libpq):
        return []
    return [name for name, _ in parse_qsl(libpq.partition("?")[2], keep_blank_values=True) if not _is_known(name)]


def _is_known(name: str) -> bool:
    try:
        conninfo_to_dict(f"{name}=''" if name.isidentifier() else "-")
    except psycopg.ProgrammingError:
        return False
    return True


def _is_url(dsn: str) -> bool:
    return dsn.lstrip().startswith(("postgresql://", "postgres://"))


def _split(dsn: str) -> tuple[str, dict[str, str]]:
    """`dsn` without what libpq does not know, and that."""
    if not _is_url(dsn):
        own = {match[1]: re.sub(r"\\(.)", r"\1", match[2].strip("'")) for match in _PAIR.finditer(dsn)}
        return (_PAIR.sub("", dsn) if own else dsn), own
    base, mark, query = dsn.strip().partition("?")
    own = {name: value for name, value in parse_qsl(query) if name in {PGBOUNCER, _FACTS}}
    kept = [part for part in query.split("&") if part.partition("=")[0] not in own]
    return (base + mark + "&".join(kept)).removesuffix("?") if own else dsn, own
