"""Chatwoot's webhook signature: verify and sign (chatwoot/CONTRACT: X-Chatwoot-Signature).

`sha256=` + lower-case hex of HMAC-SHA256(secret, timestamp + "." + raw body). The timestamp, unix
seconds as text, is part of what is signed; one more than five minutes off is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGNATURE_HEADER = "x-chatwoot-signature"
TIMESTAMP_HEADER = "x-chatwoot-timestamp"
DELIVERY_HEADER = "x-chatwoot-delivery"

TOLERANCE_S = 300
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class SignatureFault(StrEnum):
    """Why a signature is refused: the `reason` of a `support.webhook.rejected` fact."""

    MISSING = "missing_signature"
    INVALID = "invalid_signature"
    STALE = "stale_timestamp"


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The value of `X-Chatwoot-Signature` for `body`, signed at `timestamp` (unix seconds as text)."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def signature_fault(
    secrets: Sequence[bytes], timestamp: str | None, signature: str | None, body: bytes, *, now: float
) -> SignatureFault | None:
    """None if one of `secrets` made `signature`, no longer ago (or ahead) than five minutes.

    `now` is in unix seconds. Every secret is tried and compared in constant time, so that the time
    taken does not tell which one matched.
    """
    if not signature or not timestamp:
        return SignatureFault.MISSING
    if not _TIMESTAMP.fullmatch(timestamp):
        return SignatureFault.INVALID
    given = signature.encode("latin-1", "replace")
    matches = [hmac.compare_digest(sign(secret, timestamp, body).encode(), given) for secret in secrets]
    if not any(matches):
        return SignatureFault.INVALID
    if abs(now - int(timestamp)) > TOLERANCE_S:
        return SignatureFault.STALE
    return None
