"""Several workers under a supervisor, as a service manager and Prometheus see them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.server.supervisor import relay_name
from tests.relay.test_command_serve import serving
from tests.servers import PATIENCE_S, free_port, wait_for, wait_until_healthy

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.servers import Rows

REJECTED = "relay_webhooks_rejected_total"


def counted(port: int) -> dict[str, Counter[str]]:
    """What one scrape counts, by metric, by worker."""
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S
    ) as client:  # a connection of its own: any worker
        text = client.get("/metrics").raise_for_status().text
    found: dict[str, Counter[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, Counter())[sample.labels.get("worker", "")] += int(sample.value)
    return found


def refuse(port: int, times: int) -> None:
    """Post what is no webhook, each on a connection of its own, so that the workers share them."""
    for _ in range(times):
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"connection": "close"}, timeout=PATIENCE_S
        ) as client:
            assert client.post("/api/webhooks/chatwoot", content=b"[]").status_code == 400


def messages(receiver: socket.socket, until: str) -> list[str]:
    """What the service manager gets, until it gets `until`."""
    receiver.settimeout(PATIENCE_S)
    got: list[str] = []
    while until not in got:
        got += receiver.recv(4096).decode().splitlines()
    return got


@pytest.mark.slow
def test_metrics_are_exact_over_workers_and_never_fall_and_the_manager_is_notified(relay_command: CommandLine) -> None:
    port, metrics = free_port(), free_port()
    environment: dict[str, Any] = {
        "RELAY_BIND": f"127.0.0.1:{port}",
        "RELAY_METRICS_BIND": f"127.0.0.1:{metrics}",
        "RELAY_WORKERS": "3",
        "NOTIFY_SOCKET": str(relay_command.folder / "notify"),
    }
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        serving(relay_command, **environment) as (process, output),
    ):
        manager.bind(environment["NOTIFY_SOCKET"])
        assert messages(manager, "READY=1") == ["READY=1"]
        wait_until_healthy(port)
        assert httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S).status_code == 404, (
            "it has an address of its own"
        )
        assert httpx.get(f"http://127.0.0.1:{metrics}/health/live", timeout=PATIENCE_S).json()["status"] == "ok"

        refuse(port, 30)
        before = counted(metrics)[REJECTED]
        assert before.total() == 31, "the 404 too"
        assert all(counted(metrics)[REJECTED] == before for _ in range(6)), "whichever worker answers"

        busiest = max(before, key=lambda slot: before[slot])
        os.kill(_pid_of_worker(process.pid, int(busiest)), signal.SIGKILL)
        wait_for(lambda: "A worker died and is replaced" in output.read_text(encoding="utf-8"))
        refuse(port, 30)
        after = counted(metrics)[REJECTED]
        assert after.total() == 61
        assert all(after[slot] >= before[slot] for slot in before)

        process.send_signal(signal.SIGTERM)
        messages(manager, "STOPPING=1")
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_a_worker_that_is_stopped_or_ends_is_replaced_and_sighup_drains(relay_command: CommandLine, rows: Rows) -> None:
    port = free_port()
    with serving(relay_command, RELAY_BIND=f"127.0.0.1:{port}", RELAY_WORKERS="2") as (process, output):
        wait_for(lambda: sorted(rows("SELECT slot FROM relay.instances")) == [0, 1])
        stopped, ends = (_pid_of_worker(process.pid, slot) for slot in (0, 1))
        os.kill(ends, signal.SIGHUP)
        wait_for(lambda: "A worker stopped and is replaced" in output.read_text(encoding="utf-8"))
        os.kill(stopped, signal.SIGSTOP)
        wait_for(lambda: "A worker does not respond and is replaced" in output.read_text(encoding="utf-8"))
        wait_for(lambda: {stopped, ends}.isdisjoint(_workers(process.pid)) and len(_workers(process.pid)) == 2)
        wait_until_healthy(port)
        process.send_signal(signal.SIGHUP)
        assert process.wait(PATIENCE_S) == 0
    assert "Address already in use" not in output.read_text(encoding="utf-8")


def test_of_two_starts_on_one_address_at_once_one_is_refused_in_one_line(relay_command: CommandLine) -> None:
    bind = f"127.0.0.1:{free_port()}"
    starts = [
        subprocess.Popen(
            [sys.executable, "-m", "relay", "serve"], cwd=relay_command.folder, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, env=os.environ | relay_command.env | {"RELAY_BIND": bind}, text=True,
        ) for _ in range(3)
    ]  # fmt: skip
    try:
        wait_for(lambda: sum(start.poll() is not None for start in starts) == 2)
        refused = [start for start in starts if start.poll() is not None]
        for start in refused:
            _, said = start.communicate(timeout=PATIENCE_S)
            assert (start.returncode, said.count("\n")) == (2, 1), said
            assert said.startswith(f"relay: RELAY_BIND={bind}: cannot listen there (Address already in use)")
        wait_until_healthy(int(bind.rpartition(":")[2]))
    finally:
        for start in starts:
            start.terminate()
            start.wait(PATIENCE_S)


def test_a_relays_name_differs_from_that_of_another_machine_with_the_same_host_name() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        assert boot in relay_name(bound)
        assert relay_name(bound) == relay_name(bound), "a restart on the address replaces the earlier start"


def _workers(supervisor: int) -> list[int]:
    with open(f"/proc/{supervisor}/task/{supervisor}/children", encoding="ascii") as file:  # noqa: PTH123
        return [pid for pid in map(int, file.read().split()) if b"spawn_main" in _command(pid)]


def _pid_of_worker(supervisor: int, slot: int) -> int:
    """The process of a worker: spawned ones are the supervisor's children in the order of their slots."""
    return _workers(supervisor)[slot]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
