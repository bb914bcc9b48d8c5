"""The files that `relay deploy` prints are accepted by the programs that read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from relay.commands.deploy import command
from relay.deploy.catalogue import FILES, find
from relay.server.supervisor import STOP_WITHIN_S
from relay.settings import Settings
from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

OTHER_VARIABLES = {
    "POSTGRES_PASSWORD",
    "POSTGRES_USER",
    "POSTGRES_DB",
    "RELAY_DB_PASSWORD",
    "CONSOLE_DB_PASSWORD",
    "OWNER_DATABASE_URL",
}


def printed(*arguments: str) -> tuple[int, str]:
    """Exit status and output of `relay deploy ARGUMENTS`."""
    ended = CliRunner().invoke(command, arguments)
    return ended.exit_code, ended.output


def program(name: str) -> str:
    """The path of a program, or the test is skipped."""
    found = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*arguments: str | Path) -> None:
    """Run a program, which must be content."""
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_file_is_listed_and_printed() -> None:
    status, listing = printed()
    assert status == 0
    assert [line.split()[0] for line in listing.splitlines()] == [one.name for one in FILES]
    wrong = [one.name for one in FILES if printed(one.name) != (0, one.content()) or not one.content().endswith("\n")]
    assert wrong == []
    readable = {path.name for path in (ROOT / "relay" / "deploy").iterdir() if path.suffix not in {".py", ""}}
    assert readable - {"README.md"} <= {one.file for one in FILES}


def test_a_file_is_found_by_its_own_name_too() -> None:
    names = {"Dockerfile": "dockerfile", "fly.toml": "fly", "GRAFANA": "grafana", "hotdash-relay.service": "systemd"}
    assert {name: one.name for name in names if (one := find(name))} == names
    every = [name for one in FILES for name in (one.name, one.file.lower(), *one.others)]
    assert sorted({(name, find(name).file) for name in every}) == sorted(
        {(name, one.file) for one in FILES for name in (one.name, one.file.lower(), *one.others)}
    )


def test_an_unknown_name_is_wrong_use() -> None:
    status, output = printed("kubernetes")
    assert status == 2
    assert "There is no file 'kubernetes' to deploy. Names: dockerfile, compose, " in output


def test_every_variable_in_them_is_one_of_ours() -> None:
    known = {name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    named = {
        (one.name, name)
        for one in FILES
        for name in re.findall(
            r"\b(?:RELAY|CHATWOOT|AGENT_SDK|CONSOLE|POSTGRES|DATABASE|OWNER)_[A-Z_]+\b", one.content()
        )
    }
    assert {(file, name) for file, name in named if name not in known} == set()


def test_each_gives_the_relay_its_time_to_stop() -> None:
    times = {
        "compose": r"^  relay:.*?stop_grace_period: (\d+)s",
        "fly": r'kill_timeout = "(\d+)s"',
        "systemd": r"TimeoutStopSec=(\d+)",
    }
    flags = re.DOTALL | re.MULTILINE
    found = {name: int(re.search(pattern, find(name).content(), flags)[1]) for name, pattern in times.items()}
    assert {name: seconds for name, seconds in found.items() if seconds <= STOP_WITHIN_S} == {}


def test_the_fly_file_is_toml_with_a_release_command_and_a_volume() -> None:
    fly = tomllib.loads(find("fly").content())
    assert "relay migrate" in fly["deploy"]["release_command"]
    assert fly["mounts"][0]["destination"] == fly["env"]["RELAY_DATA_DIR"]
    assert fly["http_service"]["internal_port"] == int(fly["env"]["RELAY_BIND"].rpartition(":")[2])
    assert fly["metrics"]["port"] == int(fly["env"]["RELAY_METRICS_BIND"].rpartition(":")[2])


def test_the_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    unit = find("systemd")
    relay = tmp_path / "opt/hotdash-relay/bin/relay"
    units = tmp_path / "etc/systemd/system"
    relay.parent.mkdir(parents=True)
    units.mkdir(parents=True)
    relay.write_text("#!/bin/sh\n")
    relay.chmod(0o755)
    (units / unit.file).write_text(unit.content())
    run(analyze, "verify", "--man=no", "--recursive-errors=no", f"--root={tmp_path}", unit.file)
    run(analyze, "security", "--offline=true", "--threshold=20", f"--root={tmp_path}", unit.file)


def test_the_proxies_accept_their_files(tmp_path: Path) -> None:
    nginx = program("nginx")
    openssl = program("openssl")
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    run(
        openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=hooks.example.com",
        "-keyout", key, "-out", certificate,
    )  # fmt: skip
    text = find("nginx").content()
    text = text.replace("/etc/ssl/hooks.example.com.pem", str(certificate))
    text = text.replace("/etc/ssl/hooks.example.com.key", str(key))
    whole = tmp_path / "nginx.conf"
    whole.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{text}\n}}\n")
    run(nginx, "-t", "-q", "-e", tmp_path / "log", "-c", whole)


def test_caddy_accepts_its_file(tmp_path: Path) -> None:
    caddy = program("caddy")
    file = tmp_path / "Caddyfile"
    file.write_text(find("caddy").content())
    run(caddy, "adapt", "--config", file, "--adapter", "caddyfile", "--pretty")


RULES_TEST = """
rule_files: [hotdash-relay.rules.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {series: 'relay_alert_firing{job="hotdash-relay",rule="dlq-p2",severity="P2"}', values: '0x3 1x20'}
      - {series: 'up{job="hotdash-relay",instance="a"}', values: '1x4 0x20'}
      - {series: 'relay_webhooks_rejected_total{job="hotdash-relay",reason="not_stored"}', values: '0x3 2x20'}
      - {series: 'relay_webhooks_rejected_total{job="hotdash-relay",reason="invalid_signature"}', values: '0x3 2x20'}
    alert_rule_test:
      - {eval_time: 30s, alertname: RelayAlert}
      - eval_time: 3m
        alertname: RelayAlert
        exp_alerts:
          - exp_labels: {job: hotdash-relay, rule: dlq-p2, severity: P2}
            exp_annotations:
              summary: "dlq-p2 (P2)"
              description: "The relay's alert dlq-p2 fires. Open the console, or run `relay diagnose`."
      - eval_time: 3m
        alertname: RelayDown
        exp_alerts:
          - exp_labels: {job: hotdash-relay, instance: a, severity: P0}
            exp_annotations:
              summary: "a does not answer"
              description: "No metrics for 1 minute. Chatwoot sends a webhook once: what it sends now is lost."
      - eval_time: 3m
        alertname: RelayWebhooksLost
        exp_alerts:
          - exp_labels: {job: hotdash-relay, reason: not_stored, severity: P1}
            exp_annotations:
              summary: "Webhooks were refused: not_stored"
              description: "Chatwoot does not send them again. `relay backfill` finds the messages."
      - {eval_time: 3m, alertname: RelayDatabaseDown}
"""


def test_prometheus_accepts_its_files_and_alerts_as_they_say(tmp_path: Path) -> None:
    promtool = program("promtool")
    for name in ("prometheus", "prometheus-rules"):
        (tmp_path / find(name).file).write_text(find(name).content())
    (tmp_path / "test.yml").write_text(RULES_TEST)
    run(promtool, "check", "config", tmp_path / "prometheus.yml")
    run(promtool, "test", "rules", tmp_path / "test.yml")


def test_the_dashboard_names_its_data_source_and_lays_its_panels_side_by_side() -> None:
    board = json.loads(find("grafana").content())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["expr"] for target in panel["targets"])
        assert panel["type"] == "stat" or "showLegend" in panel["options"]["legend"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
