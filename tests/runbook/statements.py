"""What the runbook states: each statement, how it is tried here, and what must come of it.

`Stated.command` is interpreted by `tests/runbook/test_runbook.py`:

- `default NAME`: the setting's default. `wait N`: the pause after N failed attempts, by default.
- `agent STATUS`: post a webhook that the Agent SDK answers so; what the sender is answered, after how many attempts,
  and which facts were recorded. `agent MODE`: the same for an Agent SDK that does not answer.
- `failure NAME`: whether an attempt that fails so is retried.
- `post`, `curl`: a webhook as it comes, or as the runbook's curl sends it. `post-unsigned`: to a relay with a secret.
- `log`: the lines of a webhook that was forwarded. `sql NAME`: the runbook's statement after all that.
- `alert NAME`: severity and condition of the rule. `relay …`: what the command prints.

An expectation that is a tuple names what the result must contain; a text is the whole result.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stated:
    """One statement of the runbook's `chapter`."""

    chapter: str
    statement: str
    command: str
    expected: str | tuple[str, ...]


_DEAD = "500 after 3 attempts: support.webhook.dead_letter, support.webhook.retry; retryable"
_REFUSED = "500 after 1 attempts: support.webhook.dead_letter, support.webhook.retry"
_GOOD = "200 after 1 attempts: support.webhook.retry"

STATEMENTS = (
    Stated("Data Flow", "HotDash receives at /api/webhooks/chatwoot", "post", "200"),
    Stated("Data Flow", "Signature verification (if CHATWOOT_WEBHOOK_SECRET set)", "post-unsigned",
           '401 {"error":"Invalid signature"}'),
    Stated("Configuration", "forwards to ${AGENT_SDK_URL}/webhooks/chatwoot", "log", ("/webhooks/chatwoot",)),
    Stated("Configuration", "Default Agent SDK URL", "default AGENT_SDK_URL", "https://hotdash-agent-service.fly.dev"),
    Stated("Configuration", "Max Attempts: 3", "default CHATWOOT_WEBHOOK_MAX_ATTEMPTS", "3"),
    Stated("Configuration", "Base Delay: 200ms", "default CHATWOOT_WEBHOOK_BASE_DELAY_MS", "200"),
    Stated("Configuration", "Backoff Factor: 2x", "default CHATWOOT_WEBHOOK_BACKOFF_FACTOR", "2"),
    Stated("Retry Behavior", "retry 1 after 200ms", "wait 1", "200 ms"),
    Stated("Retry Behavior", "retry 2 after 400ms", "wait 2", "400 ms"),
    *(Stated("Retryable Conditions", f"HTTP {status} is retried", f"agent {status}", _DEAD)
      for status in (500, 502, 503, 504, 429)),
    Stated("Retryable Conditions", "connection refused is retried", "agent refused", _DEAD),
    Stated("Retryable Conditions", "a timeout is retried", "agent hang", _DEAD),
    Stated("Retryable Conditions", "DNS resolution failures are retried", "failure dns_failure", "retried"),
    *(Stated("Retryable Conditions", f"HTTP {status} is not retried", f"agent {status}", _REFUSED)
      for status in (400, 401, 403, 404, 422)),
    *(Stated("Retryable Conditions", f"HTTP {status} is success", f"agent {status}", _GOOD)
      for status in (200, 202, 299)),
    Stated("Failure Handling", "metrics, dead letter, ServiceError with retryable: true, HTTP 500", "agent 503", _DEAD),
    Stated("Recorded Metrics", "retry metrics", "sql RETRY_METRICS", ("'3', 'false'", "'1', 'true'", "'503'")),
    Stated("Recorded Metrics", "dead letter queue", "sql DEAD_LETTER_QUEUE", ("Agent SDK answered 503", "'event'")),
    Stated("Alert Thresholds", "Critical: success rate < 80% over 15 minutes", "alert success-rate-critical",
           "Critical: success rate < 80 % over 15 min"),
    Stated("Alert Thresholds", "Warning: DLQ entries > 5 in 1 hour", "alert dlq-warning",
           "Warning: more than 5 dead letters in 1 h"),
    Stated("Alert Thresholds", "Info: average attempts > 1.5", "alert attempts-info",
           "Info: average attempts > 1.5 over 1 h"),
    Stated("Alerts Setup", "P0: success rate < 50% for 10 minutes", "alert success-rate-p0",
           "P0: success rate < 50 % for 10 min"),
    Stated("Alerts Setup", "P1: success rate < 80% for 15 minutes", "alert success-rate-p1",
           "P1: success rate < 80 % for 15 min"),
    Stated("Alerts Setup", "P2: DLQ entries > 10 in 1 hour", "alert dlq-p2", "P2: more than 10 dead letters in 1 h"),
    Stated("Alerts Setup", "Info: Agent SDK response time > 2 seconds", "alert agent-slow-info",
           "Info: average forwarding time > 2 s over 15 min"),
    Stated("When to Escalate", "DLQ entries > 20 in 1 hour", "alert escalate-dlq",
           "escalate: more than 20 dead letters in 1 h"),
    Stated("When to Escalate", "success rate < 70% for > 30 minutes", "alert escalate-success",
           "escalate: success rate < 70 % for more than 30 min"),
    Stated("When to Escalate", "Agent SDK down for > 5 minutes", "alert escalate-agent-down",
           "escalate: Agent SDK health failing for more than 5 min"),
    Stated("When to Escalate", "customer replies stalled > 30 minutes", "alert escalate-replies-stalled",
           "escalate: a customer's message undelivered for more than 30 min"),
    Stated("Manual Webhook Test", "expected response: HTTP 200", "curl", "200"),
    Stated("Check Logs", "the two lines of a forwarded webhook", "log",
           ("[support.webhook] Forwarding Chatwoot webhook { attempt: 1, agentEndpoint: '",
            "[support.webhook] Webhook forwarded successfully { duration: ", "attempts: 1 }")),
    Stated("Verify Metrics", "recent webhook activity", "sql RECENT_ACTIVITY", ("Decimal(",)),
    Stated("High Retry Rate", "failure reasons", "sql FAILURE_REASONS", ("('503', ", "('429', ", "('422', ")),
    Stated("Dead Letter Queue Growing", "recent entries by error", "sql RECENT_DLQ_ENTRIES",
           ("Agent SDK answered 503",)),
    Stated("Dead Letter Queue Growing", "extract failed payloads", "sql FAILED_PAYLOADS", ("message_created",)),
    Stated("Dashboard Queries", "success rate of the last hour", "sql SUCCESS_RATE", ("Decimal(",)),
    Stated("Dashboard Queries", "average response time", "sql AVERAGE_RESPONSE_TIME", ("Decimal(",)),
    Stated("Dashboard Queries", "DLQ size of 24 hours", "sql DLQ_SIZE", "[13]"),
    Stated("Health Checks", "the automated health check's lines", "relay check-health",
           ("Chatwoot health check OK → artifacts/ops/chatwoot_health_", "\n  /rails/health: OK (200)\n",
            "\n  authenticated API: OK (200)\n")),
    Stated("Troubleshooting", "four chapters are walked", "relay diagnose",
           ("Webhooks Not Received ", "High Retry Rate ", "Dead Letter Queue Growing ",
            "Signature Verification Failing ")),
    Stated("Escalation Steps", "evidence and incident", "relay escalate --yes --severity p0",
           ("Recent dead letters", "Error patterns", "Agent SDK /health", "Attempted fixes",
            "`support`, `webhook`, `p0`", "reports/manager/ESCALATION.md", "Engineering Manager",
            "AI-Customer lane", "CEO")),
)  # fmt: skip

ELSEWHERE = {
    "Dead Letter Queue Growing: replay after the fix": "tests/relay/test_command_replay.py",
    "Data Flow: draft posted as a private note": "tests/agent/test_end_to_end.py",
    "When to Escalate: each at, under and over its threshold": "tests/unit/test_alert_rules.py",
    "Webhooks Not Received: Chatwoot's URL, events, active": "tests/relay/test_diagnosis_of_chatwoot.py",
}
"""Statements that other tests hold, as they need scenes of their own."""

NOT_OURS = {
    "Key Files: app/routes/…, app/services/…, tests/integration/…": "files of the application before this program",
    "npm run ops:check-chatwoot-health": "the command is `relay check-health`; its output is the runbook's",
    "fly secrets set, fly apps restart": "they change the platform; diagnosis names what to set",
    "Review load balancer and proxy logs, check firewall rules": "outside of what a relay can see",
    "fly logs -a hotdash-agent-service": "AGENT_SDK_LOGS names the command of the installation",
    "Notify stakeholders": "people are notified by people; the entry names whom",
    "docs/runbooks/support_outage.md": "RELAY_OUTAGE_RUNBOOK names the installation's own",
    "Increase capacity, reduce webhook frequency": "RELAY_AGENT_RATE caps forwarding; the rest is the agent's",
}
"""Statements that this program cannot fulfil, and why."""
