"""A receipt in the spool, and its row there. All but the key columns and the bodies is one JSON object.

A field that a later version adds to `Receipt` needs no change of the file: what a row lacks has its default.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from relay.domain.delivery import Receipt, Signature

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = frozenset({"delivery_id", "body", "encoded_body", "signature", "headers"})
_IN_JSON = [field.name for field in fields(Receipt) if field.name not in _COLUMNS]


@dataclass(frozen=True, slots=True)
class SpooledReceipt:
    """A receipt with what storing it later needs: its claim, when it was received, the conversation it keeps order in.

    `seq` is its row in the spool, 0 before it has one. `refused` is why Postgres refuses it, if it does.
    """

    claim: UUID
    receipt: Receipt
    received_at: datetime
    order_key: str | None = None
    seq: int = 0
    refused: str | None = None


def microseconds(at: datetime) -> int:
    """The microseconds since 1970 of `at`."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """The inverse of `microseconds`."""
    return _EPOCH + timedelta(microseconds=microseconds)


def encoded(item: SpooledReceipt) -> dict[str, Any]:
    """`item` as the columns of its row, without `seq`."""
    receipt, signature = item.receipt, item.receipt.signature
    values: dict[str, Any] = {name: getattr(receipt, name) for name in _IN_JSON}
    values |= {"headers": receipt.headers, "received_at": microseconds(item.received_at)}
    if signature is not None:
        values["signature_expires_at"] = signature.expires_at
    return {
        "at": microseconds(item.received_at),
        "delivery_id": receipt.delivery_id,
        "order_key": item.order_key,
        "signature": None if signature is None else str(signature.key),
        "claim": str(item.claim),
        "fields": json.dumps(values),
        "body": receipt.body,
        "encoded_body": receipt.encoded_body,
    }


def decoded(row: Sequence[Any]) -> SpooledReceipt:
    """The inverse of `encoded`, of the columns `seq, claim, delivery_id, order_key, signature, fields, body,
    encoded_body, refused`.
    """
    seq, claim, delivery_id, order_key, signature, text, body, encoded_body, refused = row
    values = json.loads(text)
    receipt = Receipt(
        delivery_id=delivery_id,
        headers=tuple((name, value) for name, value in values["headers"]),
        body=body,
        encoded_body=encoded_body,
        signature=None if signature is None else Signature(UUID(signature), values["signature_expires_at"]),
        **{name: values[name] for name in _IN_JSON if name in values},
    )
    return SpooledReceipt(UUID(claim), receipt, moment(values["received_at"]), order_key, seq, refused)
