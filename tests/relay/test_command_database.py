"""`relay dsn` and `relay migrate`: the two commands for users of psql, scripts or a managed Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.servers import Rows, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import CommandLine


@pytest.fixture
def embedded(relay_command: CommandLine) -> Iterator[CommandLine]:
    """The command line without DATABASE_URL, its embedded server in the test's folder."""
    relay_command.env |= {"DATABASE_URL": "", "RELAY_DATA_DIR": str(relay_command.folder / "data")}
    yield relay_command
    relay_command("dsn", "--stop")


def is_up(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=60).close()
    except psycopg.OperationalError:
        return False
    return True


def test_the_dsn_of_a_given_database_is_printed_alone(relay_command: CommandLine, dsn: str) -> None:
    ended = relay_command("dsn")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, dsn + "\n", "")


def test_the_embedded_server_is_started_for_its_dsn_and_left_up_until_it_is_stopped(embedded: CommandLine) -> None:
    first = embedded("dsn")
    assert (first.returncode, first.stderr) == (0, "")
    printed = first.stdout.removesuffix("\n")
    assert "\n" not in printed
    assert Rows(printed).one("SELECT 1") == 1
    assert embedded("status").returncode == 1  # no relay serves; the server starts and stops beside
    assert embedded("dsn").stdout == first.stdout
    assert is_up(printed)
    assert embedded("dsn", "--stop").returncode == 0
    assert not is_up(printed)


def test_a_given_database_is_not_ours_to_stop(relay_command: CommandLine, dsn: str) -> None:
    ended = relay_command("dsn", "--stop")
    assert ended.returncode == 2
    assert "DATABASE_URL is set" in ended.stderr
    assert is_up(dsn)


def test_migrate_says_each_step_once_and_then_that_all_is_done(relay_command: CommandLine, empty_dsn: str) -> None:
    first = relay_command("migrate", DATABASE_URL=empty_dsn)
    assert first.returncode == 0, first.stderr
    *steps, last = first.stdout.splitlines()
    names = Rows(empty_dsn)("SELECT name FROM relay.schema_migrations ORDER BY version")
    assert steps == [f"applying {name}" for name in names]
    assert last == f"{len(names)} applied; the schema is up to date."
    again = relay_command("migrate", DATABASE_URL=empty_dsn)
    assert (again.returncode, again.stdout) == (0, "The schema is up to date.\n")


def test_the_sql_of_the_roles_can_be_printed_and_run_by_an_administrator(relay_command: CommandLine, dsn: str) -> None:
    ended = relay_command("migrate", "--print-roles", DATABASE_URL=f"postgresql://127.0.0.1:{free_port()}/none")
    assert ended.returncode == 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(ended.stdout.encode())
    granted = Rows(dsn)("SELECT has_table_privilege('console_reader', 'relay.deliveries', 'SELECT')")
    assert granted == [True]


def test_a_postgres_that_is_away_is_one_line(relay_command: CommandLine) -> None:
    ended = relay_command("migrate", DATABASE_URL=f"postgresql://127.0.0.1:{free_port()}/none")
    assert ended.returncode == 1
    assert ended.stderr.startswith("relay: Postgres cannot be used now:")
    assert ended.stderr.count("\n") == 1
