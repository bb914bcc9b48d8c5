"""`relay demo`: everything on this machine, the runbook's curl beside it, and nothing left afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relay.store.embedded import EmbeddedPostgres
from tests.servers import PATIENCE_S, ROOT, Rows, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

# RUNBOOK, "Manual Webhook Test", word for word
CURL = """
curl -X POST http://localhost:8788/api/webhooks/chatwoot \\
  -H "Content-Type: application/json" \\
  -H "X-Forwarded-From: chatwoot-test" \\
  -d '{
    "event": "message_created",
    "id": 12345,
    "content": "Test message",
    "message_type": 0,
    "conversation": {"id": 1}
  }'
"""


@dataclass
class Demo:
    """A demo that ran to its end, and what curl was answered meanwhile."""

    status: int
    output: str
    url: str
    curled: subprocess.CompletedProcess[str]
    rows: Rows
    left_over: list[str]


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that were started with `folder` in their environment or arguments."""
    found, mark = [], str(folder).encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.append((process / "cmdline").read_text(errors="replace").replace("\0", " "))
        except OSError:  # it has ended, or is not ours to read
            continue
    return found


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A data directory, a home and a port of its own."""
    folder = tmp_path_factory.mktemp("demo")
    return {
        "RELAY_DATA_DIR": str(folder / "data"), "HOME": str(folder), "PYTHONPATH": str(ROOT),
        "RELAY_BIND": f"127.0.0.1:{free_port()}",
    }  # fmt: skip


@pytest.fixture(scope="module")
def demo(surroundings: dict[str, str]) -> Iterator[Demo]:
    """Eight seconds of demo, which end before its outage."""
    data, url = Path(surroundings["RELAY_DATA_DIR"]), f"http://{surroundings['RELAY_BIND']}"
    output = data.parent / "output"
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "relay", "demo", "--seconds", "8", "--no-console"],
            cwd=data.parent, env=os.environ | surroundings, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for(lambda: "traffic starts" in output.read_text(encoding="utf-8"), what="the demo begins")
        port = surroundings["RELAY_BIND"].rpartition(":")[2]
        script = CURL.replace("8788", port).replace("curl ", "curl --silent --show-error --include ")
        curled = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
        )
        status = process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    left_over = processes_of(data)
    server = EmbeddedPostgres(data / "demo")
    yield Demo(status, output.read_text(encoding="utf-8"), url, curled, Rows(server.dsn), left_over)
    server.close()


def test_the_runbooks_curl_answers_200_beside_it(demo: Demo) -> None:
    assert demo.curled.returncode == 0, demo.curled.stderr
    assert re.match(r"HTTP/\S+ 200", demo.curled.stdout)
    assert '"processed": true' in demo.curled.stdout


def test_what_curl_sent_was_delivered_as_a_test(demo: Demo) -> None:
    curled = (
        "SELECT state, test, event, conversation_id FROM relay.deliveries WHERE body LIKE '%%Test message%%'::bytea"
    )
    assert demo.rows(curled) == [("delivered", True, "message_created", "1")]


def test_it_serves_where_it_says_and_ends_in_good_order(demo: Demo) -> None:
    assert demo.status == 0, demo.output
    assert f"[demo] relay on {demo.url}, " in demo.output
    assert "Traceback" not in demo.output


def test_it_says_what_chatwoot_was_answered_and_what_the_overview_shows(demo: Demo) -> None:
    (answers,) = re.findall(r"\[demo\] stopped\. Chatwoot was answered (.+)\n", demo.output)
    answered = {status: int(count) for count, status in re.findall(r"(\d+) × (200|202)\b", answers)}
    delivered = demo.rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'delivered' AND NOT test")
    assert delivered >= sum(answered.values()) > 0, answers
    summary = demo.output.partition("[demo] stopped.")[2]
    assert re.search(r"^alerts +(none$|Info )", summary, re.MULTILINE), summary  # a busy machine answers slowly
    assert re.search(rf"^deliveries +{delivered} delivered, 0 failed in 1 h; 0 in flight$", summary, re.MULTILINE)


def test_it_leaves_no_process_behind(demo: Demo) -> None:
    assert demo.left_over == []


def test_it_is_played_on_its_own_postgres_whatever_is_configured(
    demo: Demo, surroundings: dict[str, str], dsn: str
) -> None:
    port = free_port()
    given = surroundings | {"DATABASE_URL": dsn, "RELAY_BIND": f"127.0.0.1:{port}"}
    ended = subprocess.run(
        [sys.executable, "-m", "relay", "demo", "--no-console", "--seconds", "1"],
        env=os.environ | given, cwd=surroundings["HOME"], capture_output=True, text=True, check=False,
        timeout=2 * PATIENCE_S,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "DATABASE_URL is set and left alone" in ended.stderr
    assert Rows(dsn)("SELECT count(*) FROM relay.deliveries") == [0]
