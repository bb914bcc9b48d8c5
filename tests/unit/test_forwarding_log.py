"""The forwarding log's words: the runbook's lines to the letter, and no line with anything a customer wrote."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from relay.domain.delivery import Attempt, Delivery, Outcome, State
from relay.store.deliveries import Duplicate
from relay.telemetry.forwarding_log import ForwardingLog
from relay.telemetry.log_sink import LogSink

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.telemetry.log_sink import Format

ENDPOINT = "https://hotdash-agent-service.fly.dev/webhooks/chatwoot"
DELIVERY = Delivery(
    id=5, delivery_id="0192-abc", run=2, headers=(("x-chatwoot-signature", "sha256=secret"),),
    body=b'{"content": "a customer\'s words"}', event="message_created", conversation_id="77", test=False,
)  # fmt: skip


def outcome(*statuses: str, duration_ms: int = 145) -> Outcome:
    """A run whose attempts ended like this."""
    attempts = [
        Attempt(number, datetime.now(UTC), 0, 12, status, status == "200", status != "200",
                error=None if status == "200" else f"Agent SDK answered {status}: a customer's words",
                answer="a draft reply")
        for number, status in enumerate(statuses, 1)
    ]  # fmt: skip
    return Outcome(tuple(attempts), duration_ms)


def logged(emit: Callable[[ForwardingLog], None], form: Format = "text") -> str:
    """The lines that the log shows."""
    stream = io.StringIO()
    sink = LogSink(form, stream=stream)
    emit(ForwardingLog(sink, ENDPOINT))
    sink.close()
    return stream.getvalue()


HEAD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) (0192-abc )?")

LINES: dict[str, Callable[[ForwardingLog], None]] = {
    f"[support.webhook] Forwarding Chatwoot webhook {{ attempt: 1, agentEndpoint: '{ENDPOINT}' }}":
        lambda log: log.attempting(DELIVERY, 1),
    "[support.webhook] Webhook forwarded successfully { duration: 145, attempts: 1 }":
        lambda log: log.delivered(DELIVERY, outcome("200")),
    "[support.webhook] Webhook attempt failed, retrying { attempt: 1, status: '503', duration: 12, retryIn: 400 }":
        lambda log: log.retrying(DELIVERY, outcome("503").last, 400.4),
    "[support.webhook] Webhook failed, dead-lettered { attempts: 3, finalStatus: '503', "
    "error: 'Agent SDK answered 503', duration: 655, deliveryId: '0192-abc' }":
        lambda log: log.dead_lettered(DELIVERY, outcome("500", "timeout", "503", duration_ms=655)),
    "[support.webhook] Duplicate webhook, not forwarded { state: 'delivered' }":
        lambda log: log.duplicate("0192-abc", Duplicate("0192-abc", State.DELIVERED)),
    "[support.webhook] Webhook taken over { run: 2 }": lambda log: log.taken_over(DELIVERY),
    "[support.webhook] Lease lost, run abandoned { run: 2 }": lambda log: log.given_up(DELIVERY),
    "[support.webhook] Webhook rejected { reason: 'invalid_signature', status: 401 }":
        lambda log: log.rejected("invalid_signature", 401, 1),
    "[support.webhook] Webhook rejected { reason: 'stale_timestamp', status: 401, count: 500 }":
        lambda log: log.rejected("stale_timestamp", 401, 500),
    "[support.webhook] Webhook left unfinished by a defect { error: 'KeyError' }":
        lambda log: log.failed(KeyError("a customer's words")),
    "[support.webhook] Replay started { replay: 4, total: 12 }": lambda log: log.replay("started", 4, total=12),
}  # fmt: skip


@pytest.mark.parametrize(("line", "emit"), LINES.items(), ids=[line.split("]")[1].split(" {")[0][1:] for line in LINES])
def test_a_line_reads_as_the_runbook_writes_it(line: str, emit: Callable[[ForwardingLog], None]) -> None:
    shown = logged(emit)
    assert shown.endswith(line + "\n")
    assert HEAD.fullmatch(shown.removesuffix(line + "\n")), shown


def test_a_line_says_when_how_grave_and_whose() -> None:
    lines = {
        "INFO 0192-abc": lambda log: log.attempting(DELIVERY, 1),
        "WARNING 0192-abc": lambda log: log.retrying(DELIVERY, outcome("503").last, 400.4),
        "ERROR 0192-abc": lambda log: log.dead_lettered(DELIVERY, outcome("503")),
        "WARNING": lambda log: log.rejected("invalid_signature", 401, 1, client="1.2.3.4"),
    }
    heads = [logged(emit).partition(" [support.webhook]")[0].split(" ", 1) for emit in lines.values()]
    assert [head for _, head in heads] == list(lines)
    assert all(datetime.fromisoformat(at).tzinfo is not None and at.endswith("Z") for at, _ in heads)
    assert logged(lines["WARNING"]).endswith("{ reason: 'invalid_signature', status: 401, client: '1.2.3.4' }\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_carries_a_secret_or_a_customers_words(form: Format) -> None:
    lines = "".join(logged(emit, form) for emit in LINES.values())
    assert "dead-lettered" in lines
    assert not any(word in lines for word in ("secret", "customer's words", "a draft reply"))


def test_as_json_a_line_says_the_same_and_whose_it_is() -> None:
    line = json.loads(logged(lambda log: log.delivered(DELIVERY, outcome("503", "200")), "json"))
    assert datetime.fromisoformat(line.pop("at")).tzinfo is not None
    assert line == {
        "level": "info", "scope": "support.webhook", "message": "Webhook forwarded successfully",
        "deliveryId": "0192-abc", "duration": 145, "attempts": 2,
    }  # fmt: skip


def test_a_text_that_holds_quotes_and_line_ends_stays_one_line() -> None:
    line = logged(lambda log: log.replay("stopped", 1, why='it\'s\n"over"\x1b[2J\\'))
    assert (
        line.partition(" INFO ")[2]
        == "[support.webhook] Replay stopped { replay: 1, why: 'it\\'s\\n\"over\"\\u001b[2J\\\\' }\n"
    )
