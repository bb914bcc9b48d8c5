"""The files that `relay deploy` prints: their names, and where each belongs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class DeployFile:
    """A file to print. `file` is its name in this package; `others` are further names that find it."""

    name: str
    file: str
    text: str
    others: tuple[str, ...] = ()

    def content(self) -> str:
        """The file's text."""
        return (resources.files("relay.deploy") / self.file).read_text(encoding="utf-8")


FILES = (
    DeployFile("dockerfile", "Dockerfile", "Container image: not root, small, with a health check.", ("docker",)),
    DeployFile(
        "compose", "compose.yaml", "Relay, Postgres and migration as containers.", ("docker-compose", "compose.yml")
    ),
    DeployFile("fly", "fly.toml", "Fly.io: release command, checks, volume, metrics."),
    DeployFile("systemd", "hotdash-relay.service", "Service of systemd, for /etc/systemd/system.", ("service", "unit")),
    DeployFile("environment", "hotdash-relay.env", "Settings of that service, for /etc/hotdash-relay.env.", ("env",)),
    DeployFile("caddy", "Caddyfile", "Caddy in front of the relay: TLS, and what is public."),
    DeployFile("nginx", "nginx.conf", "nginx in front of the relay: TLS, and what is public."),
    DeployFile("prometheus", "prometheus.yml", "Prometheus: what to scrape.", ("prometheus.yaml", "scrape")),
    DeployFile(
        "prometheus-rules",
        "hotdash-relay.rules.yml",
        "Prometheus: alert rules.",
        ("rules", "alerts", "alert-rules", "prometheus-alerts"),
    ),
    DeployFile("grafana", "grafana.json", "Grafana: a dashboard to import.", ("dashboard", "grafana-dashboard")),
)


def find(name: str) -> DeployFile | None:
    """The file called `name`, by its name, its file name or another one; None if there is none."""
    wanted = name.strip().lower()
    return next((one for one in FILES if wanted in {one.name, one.file.lower(), *one.others}), None)
