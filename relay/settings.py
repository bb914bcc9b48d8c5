"""Every environment variable, once, typed, with the runbook section it comes from.

Nothing else in the project reads the environment. A `.env` file in the working directory is read
too; the process's own environment wins. A bad value is one line that names variable, value and
remedy (`ConfigurationError`), never a traceback.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import psycopg
from platformdirs.unix import Unix
from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from relay import dsn as dsns
from relay import env_file, variable_names
from relay.domain.alerts import Severity
from relay.domain.networks import Network, parse_networks
from relay.domain.retry import RetryPolicy
from relay.dsn import Choices
from relay.errors import ConfigurationError
from relay.text import escaped

WEBHOOK_PATH = "/api/webhooks/chatwoot"
AGENT_PATH = "/webhooks/chatwoot"


def _http_url(value: str) -> str:
    """`value` without trailing slashes, if it is an http(s) URL with a host and no query.

    Raises ValueError otherwise.
    """
    import httpx  # noqa: PLC0415 - only who sets a URL pays for it

    try:
        parts = urlsplit(value.strip())
    except ValueError:  # its message quotes credentials
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL such as https://host or http://host:port")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port must be a number from 1 to 65535") from None
    if port == 0:
        raise ValueError("its port must be a number from 1 to 65535")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    if "@" in parts.path:
        raise ValueError("must have / and @ in its password percent-encoded (%2F, %40)")
    if any(ord(c) <= 32 for c in parts.netloc + parts.path):
        raise ValueError("must not contain spaces or control characters")
    try:
        httpx.URL(value.strip())
    except httpx.InvalidURL as error:
        raise ValueError(f"is not a URL that can be called ({error})") from None
    return value.strip().rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]
DEFAULT_AGENT_SDK_URL = "https://hotdash-agent-service.fly.dev"


def split_bind(value: str) -> tuple[str, int]:
    """`("127.0.0.1", 8788)` from `"127.0.0.1:8788"`; IPv6 hosts are written in brackets.

    Raises ValueError if it is not `host:port`.
    """
    host, colon, port = value.strip().rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port, for example 127.0.0.1:8788")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("write an IPv6 host in brackets, for example [::1]:8788")
    return host.strip("[]"), int(port)


def without_credentials(url: str) -> str:
    """`url` without `user:password@`, and with `?…` for its query: the form that logs, facts and screens may show."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _without_what_may_be_secret(url)
    query = "…" if parts.query or parts.fragment else ""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment=""))


def _without_what_may_be_secret(value: str) -> str:
    """A `value` that is no URL although it was meant as one, without all that may be credentials or a query."""
    scheme, slashes, rest = value.rpartition("://")
    rest = rest.rpartition("@")[2]
    kept = re.split("[?#]", rest, maxsplit=1)[0]
    return scheme.rpartition("@")[2] + slashes + kept + ("?…" if kept != rest else "")


class Settings(BaseSettings):
    """The environment. Field names are the variables' names in lower case.

    RUNBOOK, "Environment Configuration" and "Retry Policy", for those that it names; DESIGN, 4,
    for the rest.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

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

    # Telling
    relay_alert_webhook_url: SecretStr | None = None
    relay_alert_severities: str = "P0,P1,Critical,escalate"
    relay_alert_format: Literal["slack", "pagerduty", "opsgenie"] | None = None
    relay_alert_key: SecretStr | None = None
    relay_heartbeat_url: SecretStr | None = None
    agent_sdk_logs: str | None = None
    relay_outage_runbook: str | None = None

    # Keeping
    database_url: SecretStr | None = None
    relay_database_prepare: Literal["auto", "off"] = "auto"
    relay_facts_table: str | None = None
    relay_data_dir: Path = Field(default_factory=lambda: _default_data_dir())  # noqa: PLW0108 - defined below
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
        if value is not None and not _split_secrets(value):
            raise ValueError("holds only commas; leave it unset to accept unsigned webhooks")
        return value

    @field_validator("chatwoot_api_key")
    @classmethod
    def _key_fits_into_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
            raise ValueError("holds characters that no API key has; copy it from Chatwoot again")
        return value

    @field_validator("database_url")
    @classmethod
    def _dsn_can_be_read(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (fault := _fault_of_dsn(value.get_secret_value())):
            raise ValueError(fault)
        return value

    @field_validator("relay_facts_table")
    @classmethod
    def _facts_table_has_a_schema(cls, value: str | None) -> str | None:
        if value is not None and (not value.endswith(_FACTS_TABLE) or len(value) == len(_FACTS_TABLE)):
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
            for url in _split_urls(value):
                _http_url(url.partition("?")[0])
        return value

    @field_validator("relay_alert_severities")
    @classmethod
    def _severities_are_known(cls, value: str) -> str:
        _split_severities(value)
        return value

    @field_validator("agent_draft_when")
    @classmethod
    def _conditions_are_known(cls, value: str) -> str:
        _split_conditions(value)
        return value

    @field_validator("agent_inboxes")
    @classmethod
    def _inboxes_are_ids(cls, value: str) -> str:
        _split_inboxes(value)
        return value

    @property
    def draft_when(self) -> tuple[frozenset[str], bool | None]:
        """`AGENT_DRAFT_WHEN`: the statuses (empty: all), and whether an assignee is needed (None: either way)."""
        return _split_conditions(self.agent_draft_when)

    @property
    def inboxes(self) -> frozenset[int]:
        """The ids in `AGENT_INBOXES`; empty for all inboxes."""
        return _split_inboxes(self.agent_inboxes)

    @property
    def alert_severities(self) -> frozenset[Severity]:
        """The severities whose alerts are sent to `RELAY_ALERT_WEBHOOK_URL`."""
        return _split_severities(self.relay_alert_severities)

    @property
    def alert_urls(self) -> tuple[str, ...]:
        """The addresses in `RELAY_ALERT_WEBHOOK_URL`, separated by commas or spaces."""
        return () if self.relay_alert_webhook_url is None else _split_urls(self.relay_alert_webhook_url)

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
        return _split_secrets(self.chatwoot_webhook_secret)

    @property
    def dsn_choices(self) -> Choices:
        """What is added to every connection string."""
        schema = self.relay_facts_table
        return Choices(
            no_prepare=self.relay_database_prepare == "off",
            facts_schema=None if schema is None else schema.removesuffix(_FACTS_TABLE).strip('"'),
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
        """Who runs this process, for the audit: `CONSOLE_OPERATOR`, else the login name, else `unknown`."""
        if self.console_operator:
            return self.console_operator
        try:
            return getpass.getuser()
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


def _split_urls(value: SecretStr) -> tuple[str, ...]:
    return tuple(re.split(r"[\s,]+(?=https?://)", value.get_secret_value().strip()))


def _split_secrets(value: SecretStr | None) -> tuple[bytes, ...]:
    if value is None:
        return ()
    return tuple(part.strip().encode() for part in value.get_secret_value().split(",") if part.strip())


_STATUSES = ("open", "pending", "snoozed", "resolved")
_ASSIGNMENTS = {"assigned": True, "unassigned": False}


def _split_conditions(value: str) -> tuple[frozenset[str], bool | None]:
    names = {name.strip().lower() for name in value.split(",") if name.strip()} - {"always"}
    if unknown := sorted(names - {*_STATUSES, *_ASSIGNMENTS}):
        raise ValueError(f"{unknown[0]} is none of always, {', '.join([*_STATUSES, *_ASSIGNMENTS])}")
    wanted = {_ASSIGNMENTS[name] for name in names if name in _ASSIGNMENTS}
    return frozenset(names & {*_STATUSES}), wanted.pop() if len(wanted) == 1 else None


def _split_inboxes(value: str) -> frozenset[int]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if unknown := [name for name in names if not (name.isascii() and name.isdigit() and 0 < int(name) < 2**63)]:
        raise ValueError(f"{unknown[0]} is no inbox id; ids are numbers, as in the inbox's address in Chatwoot")
    return frozenset(int(name) for name in names)


def _split_severities(value: str) -> frozenset[Severity]:
    known = {severity.value.lower(): severity for severity in Severity}
    names = [name.strip().lower() for name in value.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{unknown[0]} is none of {', '.join(Severity)}")
    return frozenset(known[name] for name in names)


_FACTS_TABLE = ".dashboard_facts"
_NOT_A_DSN = (
    "must be a connection string such as postgresql://user@host:5432/database "
    "(with / and @ in a password as %2F and %40)"
)


def _fault_of_dsn(text: str) -> str:
    """Why it is no connection string that Postgres's client library reads, with ports that are numbers; else empty.

    A password in a URL must have `@` and `/` percent-encoded: a part of it would else count as the host or the
    database, which are shown.
    """
    scheme, slashes, rest = text.strip().partition("://")
    if slashes and scheme in {"postgresql", "postgres"}:
        authority, _, path = rest.partition("?")[0].partition("/")
        if authority.count("@") > 1 or "@" in path:
            return _NOT_A_DSN
    if unknown := dsns.unknown_parameters(text):
        names = ", ".join(escaped(name) for name in unknown)
        return f"Postgres knows no such parameter, remove it: {names}{_instead(unknown)}"
    try:
        ports = dsns.parse(text)[0].get("port")
    except psycopg.ProgrammingError:
        return _NOT_A_DSN
    are_numbers = all(port.isascii() and port.isdigit() for port in str(ports or 5432).split(",") if port)
    return "" if are_numbers else _NOT_A_DSN


_INSTEAD = {
    "schema": "RELAY_FACTS_TABLE=SCHEMA.dashboard_facts names a schema",
    "connection_limit": "a relay worker uses up to 8 connections",
}


def _instead(unknown: list[str]) -> str:
    return "".join(f"; {_INSTEAD[name]}" for name in unknown if name in _INSTEAD)


_SECRET_FIELDS = {
    "llm_api_key",
    "transcribe_api_key",
    "chatwoot_api_key",
    "chatwoot_webhook_secret",
    "database_url",
    "relay_alert_webhook_url",
    "relay_alert_key",
    "relay_heartbeat_url",
}
_URL_FIELDS = {
    "otel_exporter_otlp_endpoint",
    "agent_sdk_url",
    "chatwoot_base_url",
    "llm_base_url",
    "relay_url",
    "transcribe_base_url",
}


def load_settings(**overrides: Any) -> Settings:
    """The settings from environment, `.env` and `overrides` (which win; None means not given).

    Raises:
        ConfigurationError: a value is bad, one line for each bad variable; or `.env` cannot be read.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    env_file.names()
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(item, given) for item in error.errors())) from None


def near_misses() -> list[tuple[str, str]]:
    """The names in environment and `.env` that are not read although they are nearly a variable's, each with that one.

    Raises:
        ConfigurationError: `.env` cannot be read.
    """
    known = {name.upper() for name in Settings.model_fields}
    return variable_names.near_misses([*os.environ, *env_file.names()], known)


def _default_data_dir() -> Path:
    """The user's data directory; for an account without a home directory the system's."""
    try:
        return Path(Unix("hotdash-relay").user_data_dir)
    except (RuntimeError, KeyError):
        return Path("/var/lib/hotdash-relay")


def _explain(item: Any, given: dict[str, Any]) -> str:
    """`CHATWOOT_WEBHOOK_MAX_ATTEMPTS=0: must be at least 1`, from one of pydantic's errors."""
    field = str(item["loc"][0])
    reason = str(item["msg"]).removeprefix("Value error, ")
    reason = reason.replace("Input should be", "must be", 1)
    if field in _SECRET_FIELDS:
        return f"{field.upper()}: {reason}"
    value = str(given.get(field, item.get("input", "")))
    if field in _URL_FIELDS:
        value = _without_what_may_be_secret(value)
    return f"{field.upper()}={escaped(value)}: {reason}"
