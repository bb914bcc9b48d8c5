"""The environment: every variable's default, what is refused in one line that names it, and where it is read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.domain.retry import RetryPolicy
from relay.errors import ConfigurationError
from relay.settings import Settings, load_settings, split_bind

DEFAULTS: dict[str, Any] = {
    "CHATWOOT_BASE_URL": None,
    "CHATWOOT_API_KEY": None,
    "CHATWOOT_ACCOUNT_ID": None,
    "AGENT_SDK_URL": "https://hotdash-agent-service.fly.dev",
    "CHATWOOT_WEBHOOK_SECRET": None,
    "CHATWOOT_WEBHOOK_MAX_ATTEMPTS": 3,
    "CHATWOOT_WEBHOOK_BASE_DELAY_MS": 200,
    "CHATWOOT_WEBHOOK_BACKOFF_FACTOR": 2,
    "CHATWOOT_WEBHOOK_MAX_DELAY_MS": 30_000,
    "CHATWOOT_WEBHOOK_JITTER": 0,
    "AGENT_SDK_TIMEOUT_MS": 30_000,
    "CHATWOOT_WEBHOOK_RESPONSE_DEADLINE_MS": 4_500,
    "CHATWOOT_WEBHOOK_MAX_BODY_BYTES": 32 * 1024 * 1024,
    "RELAY_SPOOL_MAX_BYTES": 268_435_456,
    "RELAY_RESPOND": "forwarded",
    "RELAY_BIND": "127.0.0.1:8788",
    "RELAY_WORKERS": 1,
    "RELAY_URL": None,
    "DATABASE_URL": None,
    "RELAY_RETENTION_DAYS": 30,
    "RELAY_PROBE_SECONDS": 30,
}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_variable_that_is_not_set_has_the_documents_default() -> None:
    settings = load_settings()
    assert {variable: getattr(settings, variable.lower()) for variable in DEFAULTS} == DEFAULTS


def test_the_retry_policy_is_the_runbooks() -> None:
    policy = load_settings().retry_policy
    assert policy == RetryPolicy(max_attempts=3, base_delay_ms=200, factor=2, max_delay_ms=30_000, jitter=0)


def test_deliveries_go_below_the_agents_url() -> None:
    assert load_settings().agent_endpoint == "https://hotdash-agent-service.fly.dev/webhooks/chatwoot"


def test_the_embedded_databases_data_are_the_users() -> None:
    assert load_settings().relay_data_dir.is_relative_to(Path.home())


GIVEN = [
    ("CHATWOOT_BASE_URL", "https://chat.example.com/", "chatwoot_base_url", "https://chat.example.com"),
    ("CHATWOOT_ACCOUNT_ID", "7", "chatwoot_account_id", 7),
    ("AGENT_SDK_URL", "http://agent:8787/sdk//", "agent_endpoint", "http://agent:8787/sdk/webhooks/chatwoot"),
    ("AGENT_SDK_URL", "http://me:pass@agent", "agent_endpoint_shown", "http://agent/webhooks/chatwoot"),
    ("CHATWOOT_WEBHOOK_SECRET", "one", "secrets", (b"one",)),
    ("CHATWOOT_WEBHOOK_SECRET", "one, two ,,dré", "secrets", (b"one", b"two", "dré".encode())),
    ("CHATWOOT_WEBHOOK_SECRET", "", "secrets", ()),
    ("CHATWOOT_WEBHOOK_MAX_ATTEMPTS", "5", "retry_policy", RetryPolicy(max_attempts=5)),
    ("CHATWOOT_WEBHOOK_BASE_DELAY_MS", "50", "retry_policy", RetryPolicy(base_delay_ms=50)),
    ("CHATWOOT_WEBHOOK_BACKOFF_FACTOR", "1.5", "retry_policy", RetryPolicy(factor=1.5)),
    ("CHATWOOT_WEBHOOK_MAX_DELAY_MS", "900", "retry_policy", RetryPolicy(max_delay_ms=900)),
    ("CHATWOOT_WEBHOOK_JITTER", "0.25", "retry_policy", RetryPolicy(jitter=0.25)),
    ("RELAY_RESPOND", "stored", "relay_respond", "stored"),
    ("RELAY_BIND", "0.0.0.0:80", "own_url", "http://127.0.0.1:80"),
    ("RELAY_BIND", "[::1]:8788", "own_url", "http://[::1]:8788"),
    ("RELAY_BIND", "relay.internal:8788", "own_url", "http://relay.internal:8788"),
    ("RELAY_URL", "https://relay.example.com/", "own_url", "https://relay.example.com"),
    ("RELAY_RETENTION_DAYS", "0.5", "relay_retention_days", 0.5),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), GIVEN)
def test_a_variable_that_is_set_counts(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, name: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(load_settings(), name) == value


BAD = {
    "CHATWOOT_BASE_URL": ["chat.example.com", "ftp://chat.example.com"],
    "CHATWOOT_ACCOUNT_ID": ["0", "-1", "one", "1.5"],
    "AGENT_SDK_URL": [
        "agent", "agent:8787", "http://", "https:///path", "http://agent:port", "http://agent:0", "http://agent:70000",
        "http://two words", "http://[::1", "file:///etc/passwd",
    ],
    "CHATWOOT_WEBHOOK_MAX_ATTEMPTS": ["0", "-1", "three", "2.5", "101"],
    "CHATWOOT_WEBHOOK_BASE_DELAY_MS": ["-1", "nan", "inf", "200ms"],
    "CHATWOOT_WEBHOOK_BACKOFF_FACTOR": ["0", "0.5", "-2", "nan", "inf", "2x"],
    "CHATWOOT_WEBHOOK_MAX_DELAY_MS": ["-1", "nan", "inf"],
    "CHATWOOT_WEBHOOK_JITTER": ["-0.1", "1.1", "nan", "some"],
    "AGENT_SDK_TIMEOUT_MS": ["0", "-1", "forever"],
    "CHATWOOT_WEBHOOK_RESPONSE_DEADLINE_MS": ["0", "-1"],
    "CHATWOOT_WEBHOOK_MAX_BODY_BYTES": ["0", "5MiB"],
    "RELAY_DATABASE_PREPARE": ["perhaps", "on"],
    "RELAY_FACTS_TABLE": ["facts", "app.facts", ".dashboard_facts"],
    "RELAY_RESPOND": ["later", "Stored"],
    "RELAY_MAX_IN_FLIGHT": ["0", "-5", "many"],
    "RELAY_AGENT_CONCURRENCY": ["0", "-1", "many"],
    "RELAY_AGENT_RATE": ["0", "-1", "nan", "inf"],
    "RELAY_ORDER": ["always", "Conversation"],
    "RELAY_BREAKER": ["maybe", "On"],
    "RELAY_ALERT_SEVERITIES": ["P0,terrible", "high"],
    "RELAY_BIND": ["8788", "localhost", "127.0.0.1:", ":8788", "127.0.0.1:port", "127.0.0.1:70000", "::1:8788"],
    "RELAY_SPOOL_MAX_BYTES": ["-1", "256M"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["collector:4318"],
    "RELAY_METRICS_BIND": ["9464", "127.0.0.1:port"],
    "RELAY_TRUSTED_PROXIES": ["nginx", "10.0.0.0/33", "127.0.0.1;::1"],
    "RELAY_WORKERS": ["0", "-1", "65", "two"],
    "RELAY_URL": ["localhost:8788"],
    "RELAY_DATA_DIR": ["/var/my data"],
    "RELAY_LEASE_SECONDS": ["0", "-1", "nan"],
    "RELAY_RETENTION_DAYS": ["0", "-1", "nan"],
    "RELAY_PROBE_SECONDS": ["0", "-1"],
    "RELAY_AUTO_REPLAY": ["maybe"],
    "RELAY_ALERT_FORMAT": ["teams"],
    "AGENT_BIND": ["8787", "host:99999"],
    "LLM_BASE_URL": ["model.example", "ftp://model"],
    "LLM_TIMEOUT_MS": ["0", "soon"],
    "LLM_IMAGES": ["some"],
    "AGENT_QUIET_MS": ["-1", "60001", "short"],
    "AGENT_DRAFT_WHEN": ["closed", "open,mine"],
    "AGENT_INBOXES": ["support", "1,0", "-2"],
    "AGENT_DRAFT_FORMS": ["some"],
    "TRANSCRIBE_BASE_URL": ["model.example", "ftp://model"],
}  # fmt: skip


@pytest.mark.parametrize("variable", BAD)
def test_a_bad_value_is_one_line_that_names_variable_and_value(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for text in BAD[variable]:
        monkeypatch.setenv(variable, text)
        with pytest.raises(ConfigurationError) as refused:
            load_settings()
        line = str(refused.value)
        assert line.startswith(f"{variable}={text}: ")
        assert "\n" not in line
        assert len(line) > len(f"{variable}={text}: ") + 5


def test_several_bad_values_are_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_WORKERS", "0")
    monkeypatch.setenv("AGENT_SDK_URL", "agent")
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert sorted(line.split("=")[0] for line in str(refused.value).splitlines()) == ["AGENT_SDK_URL", "RELAY_WORKERS"]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CHATWOOT_WEBHOOK_SECRET", " ,, ,"),
        ("CHATWOOT_API_KEY", "hush-hush-é"),
        ("DATABASE_URL", "mysql://me:hush-hush@db/relay"),
        ("DATABASE_URL", "postgresql://me:hush-hush@db:port/relay"),
        ("DATABASE_URL", "postgresql://me:hush-hush@db/relay?connect_timeout=soon"),
        ("RELAY_ALERT_WEBHOOK_URL", "hooks.example.com/hush-hush"),
    ],
)
def test_a_bad_secret_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    line = str(refused.value)
    assert line.startswith(f"{variable}: ")
    assert "\n" not in line
    assert "hush" not in line
    assert ",," not in line


def test_credentials_in_a_url_are_not_shown_when_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SDK_URL", "http://me:hush-hush@agent:0")
    with pytest.raises(ConfigurationError, match=r"^AGENT_SDK_URL=http://agent:0: ") as refused:
        load_settings()
    assert "hush" not in str(refused.value)


def test_settings_never_show_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWOOT_WEBHOOK_SECRET", "hush-hush")
    monkeypatch.setenv("CHATWOOT_API_KEY", "hush-hush")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hush-hush@db/relay")
    monkeypatch.setenv("RELAY_ALERT_WEBHOOK_URL", "https://hooks.example.com/hush-hush")
    assert "hush" not in repr(load_settings()) + str(load_settings())


def test_every_variable_is_tried_with_a_bad_value() -> None:
    secrets = {
        "CHATWOOT_API_KEY", "CHATWOOT_WEBHOOK_SECRET", "DATABASE_URL", "RELAY_ALERT_WEBHOOK_URL", "LLM_API_KEY",
        "TRANSCRIBE_API_KEY", "RELAY_ALERT_KEY", "RELAY_HEARTBEAT_URL",
    }  # fmt: skip
    anything_goes = {
        "CONSOLE_OPERATOR", "RELAY_FORWARD_EVENTS", "LLM_MODEL", "AGENT_PROMPT_FILE", "AGENT_STOP_LABEL",
        "TRANSCRIBE_MODEL", "CONSOLE_ENVIRONMENT", "AGENT_SDK_LOGS", "RELAY_OUTAGE_RUNBOOK",
    }  # fmt: skip
    assert {name.upper() for name in Settings.model_fields} == BAD.keys() | secrets | anything_goes


def test_a_file_in_the_working_directory_is_read_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(tmp_path, ".env").write_text("RELAY_WORKERS=3\nAGENT_SDK_URL=http://from-file\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("AGENT_SDK_URL", "http://from-environment")
    settings = load_settings()
    assert (settings.relay_workers, settings.agent_sdk_url) == (3, "http://from-environment")


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWOOT_WEBHOOK_MAX_ATTEMPTS", "")
    monkeypatch.setenv("AGENT_SDK_URL", "")
    assert load_settings().chatwoot_webhook_max_attempts == 3
    assert load_settings().agent_sdk_url == "https://hotdash-agent-service.fly.dev"


def test_what_is_given_wins_over_the_environment_and_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_WORKERS", "3")
    assert load_settings(relay_workers=2).relay_workers == 2
    assert load_settings(relay_workers=None).relay_workers == 3


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8788", ("127.0.0.1", 8788)), ("[::]:0", ("::", 0)), (" localhost:80 ", ("localhost", 80))],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert split_bind(text) == address


def test_a_key_is_read_without_the_blanks_that_copying_brings() -> None:
    dsn = load_settings(database_url=" postgresql://db/relay\n").database_url
    assert dsn is not None
    assert dsn.get_secret_value() == "postgresql://db/relay"
    settings = load_settings(_env_file=None, chatwoot_api_key=" key\n", llm_api_key="\tkey")
    assert [key.get_secret_value() for key in (settings.chatwoot_api_key, settings.llm_api_key) if key] == ["key"] * 2
    for name in ("chatwoot_api_key", "llm_api_key", "transcribe_api_key", "relay_alert_key"):
        with pytest.raises(ConfigurationError, match=name.upper()):
            load_settings(_env_file=None, **{name: "two words"})
