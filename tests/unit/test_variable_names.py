"""Names that are nearly one of the relay's variables are recognised; other programs' names are left alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.settings import Settings
from relay.settings.variable_names import near_misses

KNOWN = frozenset(name.upper() for name in Settings.model_fields)
NEAR = {
    "CHATWOOT_WEBHOOK_MAX_ATTEMPT": "CHATWOOT_WEBHOOK_MAX_ATTEMPTS",
    "CHATWOOT_MAX_ATTEMPTS": "CHATWOOT_WEBHOOK_MAX_ATTEMPTS",
    "AGENT_URL": "AGENT_SDK_URL",
    "AGENTSDK_URL": "AGENT_SDK_URL",
    "agent-sdk-url": "AGENT_SDK_URL",
    "AGENT_SDK_ULR": "AGENT_SDK_URL",
    "AGENT_TIMEOUT_MS": "AGENT_SDK_TIMEOUT_MS",
    "DATABASE_URI": "DATABASE_URL",
    "RELAY_DATABASE_URL": "DATABASE_URL",
    "CHATWOOT_URL": "CHATWOOT_BASE_URL",
    "CHATWOOT_SECRET": "CHATWOOT_WEBHOOK_SECRET",
    "RELAY_WORKER": "RELAY_WORKERS",
}
OTHERS = [
    "PATH", "HOME", "SSH_AGENT_PID", "TEST_DATABASE_URL", "BASE_URL", "REDIS_URL", "AGENT_ID", "CHATWOOT_INBOX_ID",
    "LLM_TEMPERATURE", "PGHOST", "RELAY", "URL", "",
]  # fmt: skip


def test_a_name_that_is_nearly_right_is_given_the_right_one() -> None:
    assert dict(near_misses(NEAR, KNOWN)) == NEAR


def test_other_names_and_right_ones_in_any_case_are_left_alone() -> None:
    assert near_misses([*OTHERS, *KNOWN, *(name.lower() for name in KNOWN)], KNOWN) == []


@given(st.sampled_from(sorted(KNOWN)), st.data())
def test_one_letter_too_few_is_always_noticed(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    given_name = name[:at] + name[at + 1 :]
    assert [given_name for given_name, _ in near_misses([given_name], KNOWN)] or given_name in KNOWN
