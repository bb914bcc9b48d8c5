"""Replays as an operator asks for them: freeze, show what would happen, ask by size, send, watch.

A mix-in for views that hold dead letters. What is asked for is frozen when the strip opens; no refresh moves
a row under the cursor.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.content import Content

from console.data.operator_session import RATE, STOP_AFTER
from console.render.formatting import clock, milliseconds, plural, span
from console.screens.view import View
from console.widgets.question import Kind, Prompt
from relay.errors import RelayError
from relay.filters import Condition, compile_filter
from relay.settings import AGENT_PATH
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Coroutine, Sequence

    from console.data.operator_session import Proposal
    from relay.store.replays import Control, DeadLetter

_LISTED = 6
_BY_KEY = 50
_DRY_ROWS = 8
_CAUSES = 2


class Replaying(View):
    """A view that can replay."""

    def replay_matching(self, text: str, *, but: Collection[int] = ()) -> None:
        """Propose a replay of all that the filter `text` matches, but for those that are spared."""
        self._consider(_matching(text, but), text=text, by_filter=True)

    def replay_rows(self, row_ids: Sequence[int]) -> None:
        """Propose a replay of certain dead letters."""
        self._consider(Condition("d.id = ANY(%(ids)s)", {"ids": list(row_ids)}))

    def replay_edited(self, row_id: int, body: bytes) -> None:
        """Propose a replay of one dead letter with another body."""
        self._consider(Condition("d.id = %(id)s", {"id": row_id}), edited_body=body)

    def look_up(self, reading: Coroutine[Any, Any, None]) -> None:
        """Read something that the view wants to go on with; what goes wrong is said. It ends with the view."""

        async def told() -> None:
            try:
                await reading
            except RelayError as error:
                self.console.say(str(error), bad=True)

        self.run_worker(told(), group="look-up", exclusive=True)

    def _consider(
        self, condition: Condition, *, text: str = "", by_filter: bool = False, edited_body: bytes | None = None
    ) -> None:
        waiting = self.question.wait("replay", "Freezing what would be sent …", follows=Kind.COUNT)
        proposing = self.console.desk.propose(condition, text, edited_body)
        self.look_up(self._propose(proposing, waiting, by_filter=by_filter))

    async def _frozen(self, proposing: Awaitable[Proposal], waiting: Prompt) -> Proposal | None:
        """What is proposed; None if there is nothing, or if the operator has closed `waiting` in the meantime."""
        try:
            proposal = await proposing
        except RelayError:
            if self.is_up and self.question.shows(waiting):
                self.question.close()
            raise
        if not self.is_up or not self.question.shows(waiting):
            return None
        if not proposal.letters:
            self.question.close()
            self.console.say("No dead letter matches, or no longer", bad=True)
            return None
        return proposal

    async def _propose(self, proposing: Awaitable[Proposal], waiting: Prompt, *, by_filter: bool) -> None:
        proposal = await self._frozen(proposing, waiting)
        if proposal is None:
            return
        if proposal.agent is None:
            self.question.close()
            self.console.say("No relay is running, so nobody would send them. Start one with `relay serve`", bad=True)
            return
        count = len(proposal.letters)
        typed = count > _BY_KEY or (by_filter and count > 1) or proposal.edited_body is not None
        self.question.ask(
            Prompt(
                title="replay",
                lines=self._lines(proposal),
                kind=Kind.COUNT if typed else Kind.YES,
                expected=str(count),
                then=lambda _: self._send(proposal),
                dry=partial(self._dry_run, proposal),
            )
        )

    def _lines(self, proposal: Proposal) -> list[Content]:
        letters = proposal.letters
        edited = " with an edited body" if proposal.edited_body is not None else ""
        pace = f"up to {RATE:g}/s, stop at {STOP_AFTER} failures in a row, about {span(proposal.seconds)}"
        canary = f"first {proposal.canary} as a canary, then " if proposal.canary else ""
        lines = [
            Content.assemble(
                (plural(len(letters), "delivery"), "bold"),
                f"{edited} (frozen {clock(proposal.frozen_at)}) → ",
                (clean((proposal.agent or "").removesuffix(AGENT_PATH), limit=80), "bold"),
                " as ",
                (self.console.operator, "bold"),
            ),
        ]
        if len(letters) > 1:
            lines.append(Content(f"{canary}{pace}"))
        lines += _which(letters, listed=len(letters) == 1 or (len(letters) <= _BY_KEY and not proposal.filter))
        lines.append(_agent_now(proposal) + Content("  Sent ones can't be unsent."))
        return lines

    def _dry_run(self, proposal: Proposal) -> None:
        """Say exactly what would be sent, and send nothing."""
        causes = Counter((letter.final_status or "–", letter.last_error or "–") for letter in proposal.letters)
        events = Counter(clean(letter.event or "–", limit=40) for letter in proposal.letters)
        lines = [
            Content.assemble(
                (f"{plural(len(proposal.letters), 'delivery')} would be sent", "bold"), "; nothing was sent."
            ),
            *(
                Content(f"  {number:>6,}  {clean(status, limit=20)}  {clean(error, limit=80)}")
                for (status, error), number in causes.most_common(_DRY_ROWS)
            ),
            Content("  events: " + ", ".join(f"{event} {number:,}" for event, number in events.most_common(5))),
        ]
        self.question.ask(Prompt(title="dry run", lines=lines, kind=Kind.NOTICE))

    def _send(self, proposal: Proposal) -> None:
        waiting = self.question.wait("replay", f"Handing {plural(len(proposal.letters), 'delivery')} to the relay …")
        self.console.carry_out(self._hand_over(proposal, waiting))

    async def _hand_over(self, proposal: Proposal, waiting: Prompt) -> None:
        """Enqueue the plan, and show its way unless the operator has turned to something else."""
        plan_id: int | None = None
        try:
            plan_id = await self.console.desk.send(proposal)
        finally:
            watched = self.is_up and self.question.shows(waiting)
            if watched and plan_id is None:
                self.question.close()
        self.marks_served()
        if watched:
            self.question.watch_plan(plan_id, self._steer)
        else:
            self.console.say(f"Replay #{plan_id} is with the relay; 6 shows it")
        self.console.read_now()

    def _steer(self, plan_id: int, control: Control) -> None:
        self.console.carry_out(self.console.desk.control(plan_id, control))
        self.console.read_now()

    # Editing and discarding

    def edit(self, row_id: int) -> None:
        """Open the editor on a dead letter's payload; what comes back is proposed as a replay."""
        self.look_up(self._edit(row_id))

    async def _edit(self, row_id: int) -> None:
        from console.screens.editor import EditorScreen  # noqa: PLC0415 - loaded when it is first wanted

        body = await self.console.desk.body(row_id)

        def edited(changed: bytes | None) -> None:
            if changed is not None:
                self.replay_edited(row_id, changed)

        if self.app.screen is self:
            self.app.push_screen(EditorScreen(body), edited)

    def discard_matching(self, text: str, *, but: Collection[int] = ()) -> None:
        """Ask whether all that the filter `text` matches is to be discarded, but for those that are spared."""
        self._ask_discard(_matching(text, but), text, by_filter=True)

    def discard_rows(self, row_ids: Sequence[int]) -> None:
        """Ask whether certain dead letters are to be discarded."""
        self._ask_discard(Condition("d.id = ANY(%(ids)s)", {"ids": list(row_ids)}))

    def _ask_discard(self, condition: Condition, text: str = "", *, by_filter: bool = False) -> None:
        waiting = self.question.wait("discard", "Freezing what would be discarded …", follows=Kind.TEXT)
        proposing = self.console.desk.propose(condition, text)
        self.look_up(self._propose_discard(proposing, waiting, by_filter=by_filter))

    async def _propose_discard(self, proposing: Awaitable[Proposal], waiting: Prompt, *, by_filter: bool) -> None:
        """Ask for the reason, then by size as for a replay."""
        proposal = await self._frozen(proposing, waiting)
        if proposal is None:
            return
        letters = proposal.letters
        ids = [letter.id for letter in letters]

        def discard(reason: str) -> None:
            self.console.carry_out(self._discard_rows(ids, reason))

        def confirm(reason: str) -> None:
            if len(ids) == 1:
                discard(reason)
                return
            few = len(ids) <= _BY_KEY and not by_filter
            self.question.ask(
                Prompt(
                    title="discard",
                    lines=[
                        Content(f"{plural(len(ids), 'dead letter')} will never be sent: {reason}"),
                        *_which(letters, listed=few),
                    ],
                    kind=Kind.YES if few else Kind.COUNT,
                    expected=str(len(ids)),
                    then=lambda _: discard(reason),
                )
            )

        self.question.ask(
            Prompt(
                title="discard",
                lines=[
                    Content.assemble(
                        ("Discard ", ""), (plural(len(ids), "dead letter"), "bold"), " as ",
                        (self.console.operator, "bold"), ". They stay" if len(ids) > 1 else ". It stays",
                        " on record and will not be sent. Type the reason",
                    ),
                    *_which(letters, listed=len(letters) <= _LISTED),
                ],
                kind=Kind.TEXT,
                then=confirm,
            )
        )  # fmt: skip

    async def _discard_rows(self, ids: list[int], reason: str) -> None:
        await self.console.desk.discard(ids, reason)
        self.marks_served()
        self.console.say(f"{plural(len(ids), 'dead letter')} handed to the relay to be discarded")
        self.console.read_now()

    def marks_served(self) -> None:
        """Called once what was marked is on its way, to be replayed or discarded."""


def _matching(text: str, but: Collection[int]) -> Condition:
    condition = compile_filter(text)
    if not but:
        return condition
    return Condition(f"({condition.sql}) AND d.id <> ALL(%(spared)s)", condition.parameters | {"spared": list(but)})


def _which(letters: Sequence[DeadLetter], *, listed: bool) -> list[Content]:
    """Which ones: a line each as far as they are to be listed, else what became of how many of them."""
    if listed:
        lines = [Content(f"  {_named(letter, whole=len(letters) == 1)}") for letter in letters[:_LISTED]]
        more = len(letters) - _LISTED
        return [*lines, Content(f"  … and {more} more")] if more > 0 else lines
    causes = Counter((letter.final_status or "–", letter.last_error or "–") for letter in letters).most_common()
    told = [f"{number:,} × {clean(error, limit=80)}" for (_, error), number in causes[:_CAUSES]]
    more = len(causes) - _CAUSES
    return [Content("  " + ";  ".join(told) + (f";  and {plural(more, 'other cause')}" if more > 0 else ""))]


def _named(letter: DeadLetter, *, whole: bool) -> str:
    """Which one it is; of several each in a line, by the beginning of its id as the list has it."""
    event, conversation = clean(letter.event or "-", limit=40), clean(letter.conversation_id or "-", limit=20)
    status = clean(letter.final_status or "-", limit=20)
    delivery_id = clean(letter.delivery_id, limit=40) if whole else clean(letter.delivery_id[:8])
    return f"{delivery_id}  {event}  conv {conversation}  {status}"


def _agent_now(proposal: Proposal) -> Content:
    """What the agent's health was when it was last probed."""
    health = proposal.health
    if health is None:
        return Content.styled("Agent SDK: not probed yet.", "$text-warning")
    said = f"{health.status or health.error} in {milliseconds(health.latency_ms)} ({span(health.age_s)} ago)."
    return Content.assemble("Agent SDK now: ", (said, "$text-success" if health.ok else "$text-error bold"))
