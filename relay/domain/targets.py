"""What is probed: the names of the targets in facts and metrics, and their titles on screens."""

from __future__ import annotations

from enum import StrEnum


class Target(StrEnum):
    """A target of the health probes, by its name in `support.health` facts."""

    AGENT = "agent"
    CHATWOOT = "chatwoot"
    CHATWOOT_API = "chatwoot_api"


_TITLES: dict[str, str] = {
    Target.AGENT: "Agent SDK",
    Target.CHATWOOT: "Chatwoot",
    Target.CHATWOOT_API: "Chatwoot API",
}
_ROUTES: dict[str, str] = {Target.AGENT: " /health", Target.CHATWOOT: " /rails/health"}


def title(target: str) -> str:
    """`Agent SDK`, `Chatwoot`, `Chatwoot API`; an unknown target as it is."""
    return _TITLES.get(target, target)


def title_with_route(target: str) -> str:
    """The title and the path that is probed: `Agent SDK /health`."""
    return title(target) + _ROUTES.get(target, "")
