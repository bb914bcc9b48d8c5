"""Settings: environment variables and `.env`, read once and checked. Nothing else reads the environment."""

from __future__ import annotations

from relay.settings.load import load_settings, near_misses
from relay.settings.model import (
    AGENT_PATH,
    DEFAULT_AGENT_SDK_URL,
    WEBHOOK_PATH,
    HttpUrl,
    Settings,
    as_environment,
    destination_of,
    is_default_agent,
)
from relay.settings.values import parts_of, split_bind, without_credentials

__all__ = [
    "AGENT_PATH", "DEFAULT_AGENT_SDK_URL", "WEBHOOK_PATH", "HttpUrl", "Settings", "as_environment", "destination_of",
    "is_default_agent", "load_settings", "near_misses", "parts_of", "split_bind", "without_credentials",
]  # fmt: skip
