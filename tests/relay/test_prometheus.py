"""A real Prometheus scrapes a real relay: every panel of the dashboard and every alert rule finds its metric."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from relay.deploy.catalogue import find
from tests.servers import PATIENCE_S, Behaviour, HeldAgent, RunningRelay, free_port, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    StartRelay = Callable[..., Awaitable[RunningRelay]]

pytestmark = pytest.mark.slow
_VARIABLES = {"$job": "hotdash-relay", "$__rate_interval": "15s"}
PAYLOAD = {"event": "message_created", "id": 9, "message_type": "incoming", "conversation": {"id": 1}}


class Prometheus:
    """A Prometheus on this machine that scrapes `target` each second, by the printed files."""

    def __init__(self, folder: Path, target: str) -> None:
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("prometheus is not installed")
        self.port = free_port()
        (folder / find("prometheus-rules").file).write_text(find("prometheus-rules").content())
        config = find("prometheus").content().replace("127.0.0.1:9464", target).replace("15s", "1s")
        (folder / "prometheus.yml").write_text(config)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def query(self, expression: str) -> list[Any]:
        """The result of an instant query; empty until it answers."""
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{self.port}/api/v1/query", params={"query": expression}, timeout=PATIENCE_S
            )
        except httpx.TransportError:
            return []
        assert answer.status_code in {200, 503}, answer.text
        return answer.json()["data"]["result"] if answer.status_code == 200 else []


def expressions() -> Iterator[tuple[str, str]]:
    """Panel and expression of every target of the dashboard, its variables filled in."""
    for panel in json.loads(find("grafana").content())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in _VARIABLES.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression


async def test_every_panel_and_rule_finds_its_metric(start_relay: StartRelay, agent: HeldAgent, tmp_path: Path) -> None:
    relay = await start_relay(relay_probe_seconds=1)
    prometheus = Prometheus(tmp_path, f"127.0.0.1:{relay.port}")
    try:
        agent.behave(Behaviour(status=503, times=1), Behaviour(times=3), Behaviour(status=422))
        for body in [PAYLOAD] * 8 + [b"[]"]:
            await relay.post(body)
        await until(lambda: asyncio.to_thread(prometheus.query, 'up{job="hotdash-relay"} == 1'), every_s=0.2)
        await relay.post(b"[]")
        empty = dict.fromkeys(expressions())

        async def all_found() -> bool:
            for item in list(empty):
                if await asyncio.to_thread(prometheus.query, item[1]):
                    del empty[item]
            return not empty

        await until(all_found, what=f"a result for each of {list(empty)}", every_s=0.5)
        firing = 'ALERTS{alertname="RelayAlert", alertstate="firing"}'
        await until(lambda: asyncio.to_thread(prometheus.query, firing), every_s=0.5)
        named = set(re.findall(r"\brelay_[a-z_]+", find("prometheus-rules").content()))
        assert {name for name in named if not await asyncio.to_thread(prometheus.query, name)} == set()
    finally:
        prometheus.close()
