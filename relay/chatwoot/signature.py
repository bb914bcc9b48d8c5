"""Chatwoot's webhook signature: verify and sign (chatwoot/CONTRACT: X-Chatwoot-Signature).

`sha256=` + lower-case hex of HMAC-SHA256(secret, timestamp + "." + raw body). The timestamp, unix
seconds as text, is part of what is signed; one more than five minutes off is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from relay.chatwoot.rails import rails_json
from relay.domain.delivery import Signature
from relay.domain.headers import SIGNATURE_HEADER, TIMESTAMP_HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

DELIVERY_HEADER = "x-chatwoot-delivery"

TOLERANCE_S = 300
_SCHEME = "sha256="
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class SignatureFault(StrEnum):
    """Why a signature is refused: the `reason` of a `support.webhook.rejected` fact."""

    MISSING = "missing_signature"
    INVALID = "invalid_signature"
    STALE = "stale_timestamp"
    UNSIGNED_AUTOMATION = "unsigned_automation"
    REENCODED = "reencoded_body"


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The value of `X-Chatwoot-Signature` for `body`, signed at `timestamp` (unix seconds as text)."""
    return _SCHEME + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def signature_fault(
    secrets: Sequence[bytes], timestamp: str | None, signature: str | None, body: bytes, *, now: float
) -> SignatureFault | None:
    """None if one of `secrets` made `signature` over `body` in time: see `verify`."""
    verified = verify(secrets, timestamp, signature, (body,), now=now)
    return verified if isinstance(verified, SignatureFault) else None


def verify(
    secrets: Sequence[bytes], timestamp: str | None, signature: str | None, bodies: Sequence[bytes], *, now: float
) -> Signature | SignatureFault:
    """The signature, if one of `secrets` made it over one of `bodies` (forms of one body) in time; else its fault.

    `now` is in unix seconds. Every secret and form is tried and compared in constant time.
    """
    if not signature or not timestamp:
        return SignatureFault.MISSING
    if not _TIMESTAMP.fullmatch(timestamp):
        return SignatureFault.INVALID
    given = signature.encode("latin-1", "replace")
    possible = [sign(secret, timestamp, body) for body in bodies for secret in secrets]
    matches = [value for value in possible if hmac.compare_digest(value.encode(), given)]
    if not matches:
        return SignatureFault.INVALID
    if abs(now - int(timestamp)) > TOLERANCE_S:
        return SignatureFault.STALE
    digest = matches[0].removeprefix(_SCHEME)
    return Signature(UUID(digest[: len(digest) // 2]), int(timestamp) + TOLERANCE_S)


_MOST_REWRITTEN = 256 * 1024
_AUTOMATION = re.compile(rb'"event"\s*:\s*"(?:automation_event\.|macro\.executed)')


def explained(
    fault: SignatureFault, secrets: Sequence[bytes], timestamp: str | None, signature: str | None, body: bytes
) -> SignatureFault:
    """`fault`, or the special case of it that `body` proves: a sender that never signs, or a proxy that re-encodes.

    Automation rules and macros do not sign (CONTRACT, 1). A body that, written again as Rails writes JSON, has the
    signature that came with it was parsed and written anew after Chatwoot signed it.
    """
    if fault is SignatureFault.MISSING and _AUTOMATION.search(body):
        return SignatureFault.UNSIGNED_AUTOMATION
    if fault is SignatureFault.INVALID and len(body) <= _MOST_REWRITTEN:
        try:
            rewritten = rails_json(json.loads(body))
        except (ValueError, RecursionError):
            return fault
        now = float(timestamp) if timestamp and _TIMESTAMP.fullmatch(timestamp) else 0.0
        if isinstance(verify(secrets, timestamp, signature, (rewritten,), now=now), Signature):
            return SignatureFault.REENCODED
    return fault


__all__ = [
    "DELIVERY_HEADER", "SIGNATURE_HEADER", "TIMESTAMP_HEADER", "TOLERANCE_S", "Signature", "SignatureFault",
    "explained", "sign", "signature_fault", "verify",
]  # fmt: skip
