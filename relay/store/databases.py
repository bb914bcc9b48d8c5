"""Which database a command works on: `DATABASE_URL`, the embedded server, or that of a running demo.

Only `serve`, `demo` and `dsn` create an embedded server. The demo's is in a directory of its own below
`RELAY_DATA_DIR`, so that a real relay never opens invented data.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.pq import Conninfo

from relay import dsn as dsns
from relay.errors import ConfigurationError
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay.settings import Settings
    from relay.store.embedded import EmbeddedPostgres

_DEMO = "demo"


@dataclass(frozen=True, slots=True)
class Place:
    """A database to work on. `name` says which it is, without credentials; `note` is what else to say of the choice.

    `demo` is true for a running demo's server. Another database may be a demo's too, reached by its address: that is
    known only once it is read. `server` is the embedded server, if it is that.
    """

    dsn: str
    name: str
    note: str = ""
    demo: bool = False
    server: EmbeddedPostgres | None = None


def demo_directory(data_dir: Path) -> Path:
    """Where the demo's server keeps its data."""
    return data_dir / _DEMO


def name_of(dsn: str) -> str:
    """Database and host of `dsn`, nothing else of it."""
    parts, _ = dsns.parse(dsn)
    host = str(parts.get("host") or parts.get("hostaddr") or "localhost")
    host = "localhost" if host.startswith("/") else host
    return clean(f"{parts.get('dbname') or parts.get('user') or 'postgres'}@{host}", limit=80)


def database_name(settings: Settings) -> str:
    """The database that `settings` name, for people: without credentials."""
    if settings.database_url is not None:
        return name_of(settings.database_url.get_secret_value())
    return f"embedded PostgreSQL in {clean(str(settings.relay_data_dir))}"


def _ignore_other_servers() -> None:
    """Remove libpq's variables from the environment: they are about other servers than the embedded one."""
    for option in Conninfo.get_defaults():
        if option.envvar is not None:
            os.environ.pop(option.envvar.decode(), None)
    for name in ("PGSERVICEFILE", "PGSYSCONFDIR"):
        os.environ.pop(name, None)


@contextmanager
def database(
    settings: Settings, *, create: bool = False, or_demo: bool = False, keep_up: bool = False
) -> Iterator[Place]:
    """The database to work on; an embedded server runs for the block at least.

    Without `create` the embedded server must exist, running or not. With `or_demo` a running demo's is used where
    there is no other. `keep_up` leaves the server running afterwards, a demo's excepted.

    Raises:
        ConfigurationError: there is no such database; the message says what to set.
        StoreUnavailable: the embedded server does not start.
    """
    if settings.database_url is not None:
        dsn = dsns.with_choices(settings.database_url.get_secret_value(), settings.dsn_choices)
        yield Place(dsn, f"{name_of(dsn)} (DATABASE_URL)")
        return
    from relay.store import embedded  # noqa: PLC0415 - only a machine without DATABASE_URL needs it

    own, demo = settings.relay_data_dir, demo_directory(settings.relay_data_dir)
    name, note = f"embedded PostgreSQL in {clean(str(own))}", ""
    demo_runs = or_demo and embedded.is_running(demo)
    if embedded.exists(own):
        folder = own
        note = f"A demo is running too; RELAY_DATA_DIR={clean(str(demo))} reads that one." if demo_runs else ""
    elif demo_runs:
        folder, name, keep_up = demo, f"the demo's PostgreSQL in {clean(str(demo))}", False
    elif create:
        folder = own
    else:
        raise ConfigurationError(
            f"DATABASE_URL is not set, and RELAY_DATA_DIR={clean(str(own))} holds no embedded PostgreSQL; "
            "set DATABASE_URL to the relay's database, or RELAY_DATA_DIR to that of its `relay serve`"
        )
    _ignore_other_servers()
    server = embedded.EmbeddedPostgres(folder, keep_up=keep_up)
    try:
        dsn = dsns.with_choices(server.dsn, settings.dsn_choices)
        yield Place(dsn, name, note, demo=folder is demo, server=server)
    finally:
        server.close()
