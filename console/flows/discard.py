"""Discards dead letters: freeze, ask for the reason, confirm by size, hand over to the relay."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content

from console.flows.freeze import frozen, is_refused_without_relay, say_no_relay
from console.flows.requests import CarryOut, ReadNow, Say
from console.render.proposal import BY_KEY, LISTED, which
from console.widgets.prompt import Kind, Prompt
from relay.domain.format import plural
from relay.store.filters import compile_filter, of_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from console.data.operator_session import Proposal
    from console.flows.host import Host
    from relay.store.filters import Condition
    from relay.store.replays import DeadLetter


class DiscardFlow:
    """Discards on one screen. `when_sent` is called once they are handed over."""

    def __init__(self, host: Host, when_sent: Callable[[], None] = lambda: None) -> None:
        self._host = host
        self._when_sent = when_sent

    def matching(self, text: str, *, but: Collection[int] = ()) -> None:
        """Ask whether to discard all that the filter `text` matches, except the rows `but`."""
        self._begin(compile_filter(text).without(but), text, by_filter=True)

    def rows(self, row_ids: Sequence[int]) -> None:
        """Ask whether to discard certain dead letters."""
        self._begin(of_rows(row_ids))

    def _begin(self, condition: Condition, text: str = "", *, by_filter: bool = False) -> None:
        waiting = self._host.dialog.wait("discard", "Freezing what would be discarded …", follows=Kind.TEXT)
        proposing = self._host.context.session.propose(condition, text)
        self._host.in_background(self._propose(proposing, waiting, by_filter=by_filter))

    async def _propose(self, proposing: Awaitable[Proposal], waiting: Prompt, *, by_filter: bool) -> None:
        proposal = await frozen(self._host, proposing, waiting)
        if proposal is None or is_refused_without_relay(self._host, proposal, "discarded"):
            return
        letters = proposal.letters
        listed = len(letters) <= BY_KEY and not by_filter
        self._host.dialog.ask(
            Prompt(title="discard", lines=_why(letters, self._host.context.operator), kind=Kind.TEXT),
            partial(self._confirm, letters, listed),
        )

    def _confirm(self, letters: Sequence[DeadLetter], listed: bool, reason: str) -> None:
        """Ask again unless it is a single delivery, which was on the screen while the reason was typed."""
        ids = [letter.id for letter in letters]
        if len(ids) == 1:
            self._discard(ids, reason)
            return
        prompt = Prompt(
            title="discard",
            lines=[
                Content(f"{plural(len(ids), 'dead letter')} will never be sent: {reason}"),
                *which(letters, listed=listed),
            ],
            kind=Kind.YES if listed else Kind.COUNT,
            expected=str(len(ids)),
        )
        self._host.dialog.ask(prompt, lambda _: self._discard(ids, reason))

    def _discard(self, ids: Sequence[int], reason: str) -> None:
        snapshot = self._host.context.snapshot
        if snapshot is not None and not snapshot.overview.alive:  # it ended while the reason was typed
            say_no_relay(self._host, "discarded")
            return
        self._host.request(CarryOut(partial(self._hand_over, ids, reason)))

    async def _hand_over(self, ids: Sequence[int], reason: str) -> None:
        await self._host.context.session.discard(ids, reason)
        self._when_sent()
        self._host.request(Say(f"{plural(len(ids), 'dead letter')} handed to the relay to be discarded"))
        self._host.request(ReadNow())


def _why(letters: Sequence[DeadLetter], operator: str) -> list[Content]:
    """Return what would be discarded, and that a reason is needed."""
    return [
        Content.assemble(
            "Discard ", (plural(len(letters), "dead letter"), "bold"), " as ", (operator, "bold"),
            ". They stay" if len(letters) > 1 else ". It stays", " on record and will not be sent. Type the reason",
        ),
        *which(letters, listed=len(letters) <= LISTED),
    ]  # fmt: skip
