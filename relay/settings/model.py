"""Every environment variable, once, typed, with the runbook section it comes from. `relay.settings.load` reads them."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from platformdirs.unix import Unix
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from relay.domain.networks import Network, parse_networks
from relay.domain.retry import RetryPolicy
from relay.dsn import Choices
from relay.settings.values import (
    FACTS_TABLE,
    api_key,
    fault_of_dsn,
    http_url,
    split_bind,
    split_conditions,
    split_inboxes,
    split_secrets,
    split_severities,
    split_urls,
    without_credentials,
)
from relay.text import valid_unicode

if TYPE_CHECKING:
    from relay.domain.alerts import Severity

WEBHOOK_PATH = "/api/webhooks/chatwoot"
AGENT_PATH = "/webhooks/chatwoot"


HttpUrl = Annotated[str, AfterValidator(http_url)]
DEFAULT_AGENT_SDK_URL = "https://hotdash-agent-service.fly.dev"


def _default_data_dir() -> Path:
    """The user's data directory; for an account without a home directory the system's."""
    try:
        return Path(Unix("hotdash-relay").user_data_dir)
    except (RuntimeError, KeyError):
        return Path("/var/lib/hotdash-relay")


class Settings(BaseModel):
    """The environment, as `load_settings` reads it. Field names are the variables' names in lower case.

    RUNBOOK, "Environment Configuration" and "Retry Policy", for those that it names; DESIGN, 4,
    for the rest.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    # RUNBOOK, Environment Configuration
    chatwoot_base_url: HttpUrl | None = None
    chatwoot_api_key: SecretStr | None = None
    chatwoot_account_id: int | None = Field(default=None, ge=1)
    agent_sdk_url: HttpUrl = DEFAULT_AGENT_SDK_URL
    chatwoot_webhook_secret: SecretStr | None = None

    # RUNBOOK, Retry Policy
    chatwoot_webhook_max_attempts: int = Field(default=3, ge=1, le=100)
    chatwoot_webhook_base_delay_ms: float = Field(default=200, ge=0, le=3_600_000, allow_inf_nan=False)
    chatwoot_webhook_backoff_factor: float = Field(default=2, ge=1, le=100, allow_inf_nan=False)
    chatwoot_webhook_max_delay_ms: float = Field(default=30_000, ge=0, le=3_600_000, allow_inf_nan=False)
    chatwoot_webhook_jitter: float = Field(default=0, ge=0, le=1)
    agent_sdk_timeout_ms: int = Field(default=30_000, ge=1, le=3_600_000)

    # Receiving
    chatwoot_webhook_response_deadline_ms: int = Field(default=4_500, ge=1, le=3_600_000)
    chatwoot_webhook_max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1, le=256 * 1024 * 1024)
    relay_respond: Literal["forwarded", "stored"] = "forwarded"
    relay_forward_events: str = ""
    relay_max_in_flight: int = Field(default=2_000, ge=1, le=1_000_000)
    relay_agent_concurrency: int | None = Field(default=None, ge=1, le=1_000_000)
    relay_agent_rate: float | None = Field(default=None, gt=0, le=1_000_000, allow_inf_nan=False)
    relay_order: Literal["conversation", "none"] = "conversation"
    relay_breaker: Literal["on", "off"] = "off"

    # Serving
    relay_bind: str = "127.0.0.1:8788"
    relay_metrics_bind: str | None = None
    relay_trusted_proxies: str = ""
    otel_exporter_otlp_endpoint: HttpUrl | None = None
    relay_workers: int = Field(default=1, ge=1, le=64)
    relay_url: HttpUrl | None = None
    relay_auto_replay: bool = False
    console_operator: str | None = None
    console_environment: str | None = None

    # The reference Agent SDK
    agent_bind: str = "127.0.0.1:8787"
    agent_prompt_file: Path | None = None
    agent_quiet_ms: int = Field(default=1_500, ge=0, le=60_000)
    agent_draft_when: str = "always"
    agent_inboxes: str = ""
    agent_stop_label: str = "no-draft"
    agent_draft_forms: bool = False
    llm_base_url: HttpUrl | None = None
    llm_api_key: SecretStr | None = None
    llm_model: str | None = None
    llm_timeout_ms: int = Field(default=20_000, ge=1, le=3_600_000)
    llm_images: bool = False
    transcribe_base_url: HttpUrl | None = None
    transcribe_api_key: SecretStr | None = None
    transcribe_model: str = "whisper-1"

    # Notifying
    relay_alert_webhook_url: SecretStr | None = None
    relay_alert_severities: str = "P0,P1,Critical,escalate"
    relay_alert_format: Literal["slack", "pagerduty", "opsgenie"] | None = None
    relay_alert_key: SecretStr | None = None
    relay_heartbeat_url: SecretStr | None = None
    agent_sdk_logs: str | None = None
    relay_outage_runbook: str | None = None

    # Storing
    database_url: SecretStr | None = None
    relay_database_prepare: Literal["auto", "off"] = "auto"
    relay_facts_table: str | None = None
    relay_data_dir: Path = Field(default_factory=_default_data_dir, validate_default=True)
    relay_spool_max_bytes: int = Field(default=256 * 1024 * 1024, ge=0, le=1 << 40)
    relay_lease_seconds: float = Field(default=30, ge=1, le=3_600)
    relay_retention_days: float = Field(default=30, gt=0, le=36_500)
    relay_probe_seconds: float = Field(default=30, ge=1, le=86_400)

    @field_validator("relay_bind", "relay_metrics_bind", "agent_bind")
    @classmethod
    def _bind_is_host_and_port(cls, value: str | None) -> str | None:
        if value is None:
            return None
        split_bind(value)
        return value.strip()

    @field_validator("relay_trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("chatwoot_webhook_secret")
    @classmethod
    def _some_secret_is_left(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not split_secrets(value):
            raise ValueError("holds only commas or blanks; leave it unset to accept unsigned webhooks")
        return value

    @field_validator("chatwoot_api_key", "llm_api_key", "transcribe_api_key", "relay_alert_key")
    @classmethod
    def _key_fits_into_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else api_key(value)

    @field_validator("database_url")
    @classmethod
    def _dsn_can_be_read(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value().strip()
        if fault := fault_of_dsn(text):
            raise ValueError(fault)
        return type(value)(text)

    @field_validator("relay_facts_table")
    @classmethod
    def _facts_table_has_a_schema(cls, value: str | None) -> str | None:
        if value is not None and (not value.endswith(FACTS_TABLE) or len(value) == len(FACTS_TABLE)):
            raise ValueError("must be SCHEMA.dashboard_facts: the runbook's SQL names no other table")
        return value

    @field_validator("relay_data_dir")
    @classmethod
    def _data_dir_is_absolute(cls, value: Path) -> Path:
        if " " in str(value):  # pg_ctl splits its options at spaces
            raise ValueError("must not contain a space")
        try:
            return value.expanduser().absolute()
        except RuntimeError:
            raise ValueError("begins with ~, and this account has no home directory; give the whole path") from None

    @field_validator("relay_alert_webhook_url", "relay_heartbeat_url")
    @classmethod
    def _alerts_go_to_a_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            for url in split_urls(value):
                http_url(url.partition("?")[0])
        return value

    @field_validator("relay_alert_severities")
    @classmethod
    def _severities_are_known(cls, value: str) -> str:
        split_severities(value)
        return value

    @field_validator("agent_draft_when")
    @classmethod
    def _conditions_are_known(cls, value: str) -> str:
        split_conditions(value)
        return value

    @field_validator("agent_inboxes")
    @classmethod
    def _inboxes_are_ids(cls, value: str) -> str:
        split_inboxes(value)
        return value

    @property
    def draft_when(self) -> tuple[frozenset[str], bool | None]:
        """`AGENT_DRAFT_WHEN`: the statuses (empty: all), and whether an assignee is needed (None: either way)."""
        return split_conditions(self.agent_draft_when)

    @property
    def inboxes(self) -> frozenset[int]:
        """The ids in `AGENT_INBOXES`; empty for all inboxes."""
        return split_inboxes(self.agent_inboxes)

    @property
    def alert_severities(self) -> frozenset[Severity]:
        """The severities whose alerts are sent to `RELAY_ALERT_WEBHOOK_URL`."""
        return split_severities(self.relay_alert_severities)

    @property
    def alert_urls(self) -> tuple[str, ...]:
        """The addresses in `RELAY_ALERT_WEBHOOK_URL`, separated by commas or spaces."""
        return () if self.relay_alert_webhook_url is None else split_urls(self.relay_alert_webhook_url)

    @property
    def installation(self) -> str:
        """What the operators call this installation: `CONSOLE_ENVIRONMENT`, else the host and the bound address."""
        return self.console_environment or f"{socket.gethostname()} {self.relay_bind}"

    @property
    def forwarded_events(self) -> frozenset[str]:
        """The events that are forwarded; empty for all."""
        return frozenset(name.strip() for name in self.relay_forward_events.split(",") if name.strip())

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """Chatwoot's webhook secrets, any of which may sign; empty when unsigned ones are accepted."""
        return split_secrets(self.chatwoot_webhook_secret)

    @property
    def dsn_choices(self) -> Choices:
        """What is added to every connection string."""
        schema = self.relay_facts_table
        return Choices(
            no_prepare=self.relay_database_prepare == "off",
            facts_schema=None if schema is None else schema.removesuffix(FACTS_TABLE).strip('"'),
        )

    @property
    def trusted_proxies(self) -> tuple[Network, ...]:
        """The networks whose `X-Forwarded-For` is believed; empty for none."""
        return parse_networks(self.relay_trusted_proxies)

    @property
    def retry_policy(self) -> RetryPolicy:
        """The runbook's retry policy as these settings have it."""
        return RetryPolicy(
            max_attempts=self.chatwoot_webhook_max_attempts,
            base_delay_ms=self.chatwoot_webhook_base_delay_ms,
            factor=self.chatwoot_webhook_backoff_factor,
            max_delay_ms=self.chatwoot_webhook_max_delay_ms,
            jitter=self.chatwoot_webhook_jitter,
        )

    @property
    def agent_endpoint(self) -> str:
        """Where deliveries are forwarded to (RUNBOOK, Retry Policy: Endpoint)."""
        return self.agent_sdk_url + AGENT_PATH

    @property
    def agent_endpoint_shown(self) -> str:
        """`agent_endpoint` without credentials, for logs, facts and screens."""
        return without_credentials(self.agent_endpoint)

    @property
    def operator(self) -> str:
        """Who runs this process, for the audit: `CONSOLE_OPERATOR`, else the login name, else `unknown`.

        Bytes of it that are not UTF-8 are replaced: Postgres takes no others.
        """
        if self.console_operator:
            return valid_unicode(self.console_operator)
        try:
            return valid_unicode(getpass.getuser())
        except (KeyError, OSError):
            return "unknown"

    @property
    def own_url_shown(self) -> str:
        """`own_url` without credentials, for logs and screens."""
        return without_credentials(self.own_url)

    @property
    def own_url(self) -> str:
        """Where this machine reaches the relay: `RELAY_URL`, else the bound address."""
        if self.relay_url is not None:
            return self.relay_url
        host, port = split_bind(self.relay_bind)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def destination_of(url: str) -> str:
    """The destination of relays whose AGENT_SDK_URL is `url`; `url` may also be a destination as it is shown.

    Raises ValueError if it is no http(s) URL.
    """
    return without_credentials(http_url(url).removesuffix(AGENT_PATH) + AGENT_PATH)


def is_default_agent(endpoint: str) -> bool:
    """True if `endpoint` is that of the default `AGENT_SDK_URL`, which a relay has if it was given no other."""
    return endpoint == DEFAULT_AGENT_SDK_URL + AGENT_PATH


_HANDED_ON = (
    "agent_sdk_url", "chatwoot_base_url", "chatwoot_api_key", "chatwoot_account_id", "chatwoot_webhook_secret",
    "relay_url", "relay_data_dir",
)  # fmt: skip


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables that give another program the same agent, Chatwoot and relay as `settings`."""
    values = {name: getattr(settings, name) for name in _HANDED_ON}
    return {
        name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
        if value is not None
    }
