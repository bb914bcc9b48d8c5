"""Every `--json` document has one style and the fields that relay/JSON.md lists for it, and errors are JSON too."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from relay.cli import cli
from tests.conftest import ROOT, CommandLine
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.fork_server import ForkServer
    from tests.servers import Rows, RunningRelay

PAGE = (ROOT / "relay" / "JSON.md").read_text(encoding="utf-8")
SNAKE_CASE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
OLD_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*(?<!Z)")
TYPES = {str: "text", bool: "boolean", int: "number", float: "number", type(None): "null"}


def documented() -> dict[str, dict[str, set[str]]]:
    """The page's tables: of each heading the fields and their types."""
    found: dict[str, dict[str, set[str]]] = {}
    for section in PAGE.split("\n## ")[1:]:
        rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", section, re.MULTILINE)
        found[section.splitlines()[0].strip("`")] = {path: set(types.strip().split(" or ")) for path, types in rows}
    return found


def fields(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The paths of a document's values, with their types. `[]` stands for a list's items, `*` for a key that varies."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from fields(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        if not value:
            yield path + "[]", "none"
        for item in value:
            yield from fields(item, path + "[]")
    else:
        yield path, TYPES[type(value)]


def faults(value: Any, table: dict[str, set[str]]) -> list[str]:
    """What of a document is not in its table, or is in another style."""
    patterns = {re.compile(re.escape(path).replace(r"\*", "[^.]+")): types for path, types in table.items()}
    found = []
    for path, kind in fields(value):
        types = next((types for pattern, types in patterns.items() if pattern.fullmatch(path)), None)
        is_empty = kind == "none" and any(known.startswith(path) for known in table)
        if types is None and not is_empty:
            found.append(f"{path} ({kind}) is not documented")
        elif types is not None and kind not in types and kind != "none":
            found.append(f"{path} is {kind}")
    found += [f"{path} is not in snake_case" for path in keys(value) if not SNAKE_CASE.fullmatch(path)]
    found += [f"{text} is no RFC 3339 time in UTC" for text in texts(value) if OLD_TIME.fullmatch(text)]
    missing = [path for path in table if path != "*" and path.partition(".")[0].partition("[")[0] not in value]
    return found + [f"{path} is missing" for path in missing]


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(item)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(item)


async def test_every_document_has_the_fields_and_types_that_the_page_lists(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    relay_command: CommandLine,
    chatwoot: ChatwootStandIn,
    rows: Rows,
) -> None:
    relay = await start_relay()
    plant = Plant(rows)
    plant.delivery("dead", delivery_id="shown-1")
    plant.dead_letters(12)
    plant.probe(ok=False, age_s=5)
    chatwoot.add_message(7, "Hello?", created_at=int(time.time()) - 60)
    env = {
        "RELAY_URL": relay.url, "CHATWOOT_BASE_URL": chatwoot.url, "CHATWOOT_API_KEY": chatwoot.api_key,
        "CHATWOOT_ACCOUNT_ID": str(chatwoot.account_id), "RELAY_ALERT_WEBHOOK_URL": f"{relay.url}/health",
    }  # fmt: skip
    since = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    tables, wrong = documented(), {}
    calls: list[tuple[str, tuple[str, ...]]] = [
        ("relay hold", ("--reason", "deploy", "--for", "30m")),
        ("relay ack", ("dlq-p2", "--reason", "known")),
        ("relay status", ()),
        ("relay release", ()),
        ("relay redirect", ("--from", "http://gone", "--to", "http://new")),
        ("relay diagnose", ()),
        ("relay check-health", ()),
        ("relay alerts test", ()),
        ("relay migrate --status", ()),
        ("relay replay --dry-run", ()),
        ("relay replay", ("--yes",)),
        ("relay replay --dry-run", ("--filter", "conv:404")),
        ("relay replay", ("--filter", "conv:404")),
        ("relay send-test", ()),
        ("relay tail", ("--no-follow", "-n", "1")),
        ("relay escalate", ("--yes",)),
        ("relay backfill", ("--since", since, "--dry-run")),
        ("relay backfill", ("--since", since, "--yes")),
        ("relay backfill", ("--since", since)),
        ("relay timeline", ()),
        ("relay handover", ()),
        ("relay show", ("shown",)),
        ("relay erase", ("--conversation", "7", "--dry-run")),
        ("relay fsck", ()),
        ("relay agent check", (relay.settings.agent_sdk_url, "--large-bytes", "10000")),
    ]
    for name, arguments in calls:
        ended = await relay_command.run(*name.split()[1:], *arguments, "--json", **env)
        assert ended.stdout, (name, ended.stderr)
        found = faults(json.loads(ended.stdout), tables[name])
        if found:
            wrong[name] = found
    assert wrong == {}
    assert {name.split(" --")[0] for name, _ in calls} == {f"relay {name}" for name in with_json(cli)}


def with_json(group: click.Group) -> Iterator[str]:
    """The names of the commands in `group` that have `--json`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from (f"{name} {below}" for below in with_json(command))
        elif any("--json" in option.opts for option in command.params):
            yield name


def test_an_error_is_a_document_too_for_every_command(tmp_path: Path, fork_server: ForkServer) -> None:
    command = CommandLine(tmp_path, "garbage", fork_server)
    table, wrong = documented()["Errors"], {}
    for name in with_json(cli):
        ended = command(*name.split(), "--no-such-option", "--json")
        document = json.loads(ended.stdout)
        if ended.returncode != 2 or faults(document, table) or document["error"]["kind"] != "usage":
            wrong[name] = ended
    assert wrong == {}
    ended = command("status", "--json", DATABASE_URL="postgresql://none@127.0.0.1:1/none")
    assert (ended.returncode, json.loads(ended.stdout)["error"]["kind"]) == (1, "database_unavailable")
    assert ended.stderr.count("\n") == 1
