"""Finds the receipts of one batch that are copies of another one: they have its delivery id or its signature.

A statement stores one row an id, so copies are answered from what became of the first of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.delivery import State
from relay.store.deliveries import Claimed, Duplicate, Ignored, Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from relay.store.deliveries import Incoming, Stored

_STATES: dict[type[Stored], State] = {
    Claimed: State.FORWARDING,
    Ignored: State.IGNORED,
    Waiting: State.RECEIVED,
}


def firsts_of(pending: Mapping[int, Incoming]) -> list[int]:
    """The first of each delivery id and of each signature, as places in `pending`, in the order of their ids."""
    ids: set[str] = set()
    signatures: set[UUID] = set()
    firsts: list[int] = []
    for place, item in pending.items():
        signature = item.receipt.signature
        if item.receipt.delivery_id in ids or (signature is not None and signature.key in signatures):
            continue
        ids.add(item.receipt.delivery_id)
        if signature is not None:
            signatures.add(signature.key)
        firsts.append(place)
    return sorted(firsts, key=lambda place: pending[place].receipt.delivery_id)


def copies_of(
    pending: Mapping[int, Incoming], firsts: Sequence[int], settled: Mapping[int, Stored]
) -> dict[int, Stored]:
    """A `Duplicate` for each of `pending` that has the id or the signature of one of the `firsts` that was stored."""
    ids: dict[str, Duplicate] = {}
    signatures: dict[UUID, Duplicate] = {}
    for place in firsts:
        if isinstance(found := settled.get(place), Claimed | Ignored | Waiting):
            receipt = pending[place].receipt
            state = _STATES[type(found)]
            ids[receipt.delivery_id] = Duplicate(receipt.delivery_id, state)
            if receipt.signature is not None:
                signatures[receipt.signature.key] = ids[receipt.delivery_id]
    copies: dict[int, Stored] = {}
    for place in pending.keys() - settled.keys():
        receipt = pending[place].receipt
        by_signature = None if receipt.signature is None else signatures.get(receipt.signature.key)
        if duplicate := ids.get(receipt.delivery_id) or by_signature:
            copies[place] = duplicate
    return copies
