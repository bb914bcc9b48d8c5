"""Why webhooks are refused: each reason with its HTTP status and a phrase for people. No I/O.

The reasons are the `reason` of `support.webhook.rejected` facts (DESIGN, 2 and 6). Other programs may write facts
with reasons that are not in this table: those count as refused webhooks of an unknown status.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejection:
    """One reason. `is_webhook` is False for what scanners of the internet cause every day: no webhook was meant.

    `is_lost` is True where a good webhook was refused for want of room, so that it is lost.
    """

    reason: str
    status: int | None
    phrase: str
    is_webhook: bool = True

    @property
    def is_lost(self) -> bool:
        """True for 413 and 503 (DESIGN, 7: lost-p1)."""
        return self.status in {413, 503}

    @property
    def named(self) -> str:
        """`401, bad signature`."""
        return self.phrase if self.status is None else f"{self.status}, {self.phrase}"


_TABLE = (
    Rejection("invalid_signature", 401, "bad signature"),
    Rejection("missing_signature", 401, "no signature"),
    Rejection("stale_timestamp", 401, "timestamp too old"),
    Rejection("unsigned_automation", 401, "automation rules and macros do not sign"),
    Rejection("reencoded_body", 401, "body re-encoded after it was signed"),
    Rejection("body_too_large", 413, "body too large"),
    Rejection("not_stored", 503, "not stored by Postgres"),
    Rejection("overloaded", 503, "no memory left for bodies"),  # of earlier versions
    Rejection("wrong_path", 404, "wrong path"),
    Rejection("unsupported_encoding", 415, "unknown Content-Encoding"),
    Rejection("body_too_slow", 408, "body too slow"),
    Rejection("corrupt_encoding", 400, "corrupt Content-Encoding"),
    Rejection("empty_body", 400, "empty body"),
    Rejection("invalid_utf8", 400, "not UTF-8"),
    Rejection("invalid_json", 400, "not JSON"),
    Rejection("not_an_object", 400, "not a JSON object"),
    Rejection("nested_too_deep", 400, "nested too deep"),
    Rejection("unknown_path", 404, "unknown path", is_webhook=False),
    Rejection("wrong_method", 405, "wrong method", is_webhook=False),
)
_BY_REASON = {rejection.reason: rejection for rejection in _TABLE}

REASONS = frozenset(_BY_REASON)
"""Every reason that the relay records."""


def rejection(reason: str) -> Rejection:
    """The reason's row; one without a status for a reason that another program recorded."""
    return _BY_REASON.get(reason) or Rejection(reason, None, reason.replace("_", " "))
