"""Holds forwarding on all relays with a reason, and releases it, at a rate if the operator chooses one."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import OVERVIEW, PLAN
from console.flows.requests import CarryOut, ReadNow, Say
from console.keymap import key_of
from console.widgets.prompt import Kind, Prompt
from relay.domain.duration import seconds_of
from relay.domain.format import span
from relay.replay.requests import DEFAULT, Pace

if TYPE_CHECKING:
    from console.flows.host import Host
    from relay.store.backlog import BacklogState

_FOR = re.compile(r"\s+for\s+(\S+)$")
_ADJUSTS = frozenset({"faster", "slower"})


def ask_hold_or_release(host: Host) -> None:
    """Ask for the reason of a hold; or, while forwarding is held, whether to release it."""
    snapshot = host.context.snapshot
    if snapshot is None:
        host.request(Say("Whether forwarding is held has not been read yet", bad=True))
    elif snapshot.overview.backlog.hold is None:
        _ask_hold(host)
    else:
        _Release(host, snapshot.overview.backlog).ask()


def _ask_hold(host: Host) -> None:
    lines = [
        Content.assemble(
            "Hold forwarding on all relays as ", (host.context.operator, "bold"),
            ". Webhooks are stored and wait, attempts in progress finish, replays pause; ",
            f"{key_of(OVERVIEW, 'hold')} releases it.",
        ),
        Content("Type the reason; end it with, for example, \"for 30m\" and the hold ends by itself"),
    ]  # fmt: skip
    prompt = Prompt(title="hold", lines=lines, kind=Kind.TEXT)
    host.dialog.ask(prompt, lambda text: host.request(CarryOut(partial(_hold, host, *reason_and_time(text)))))


def reason_and_time(text: str) -> tuple[str, float | None]:
    """Return the reason, and the seconds that `for 30m` at its end names; None without such an end."""
    found = _FOR.search(text)
    if found is None:
        return text, None
    try:
        return text[: found.start()], seconds_of(found[1])
    except ValueError:
        return text, None


async def _hold(host: Host, reason: str, for_s: float | None) -> None:
    await host.context.session.hold(reason, for_s)
    ends = f"until {key_of(OVERVIEW, 'hold')} releases it" if for_s is None else f"for {span(for_s)}"
    host.request(Say(f"Forwarding is held {ends}"))
    host.request(ReadNow())


class _Release:
    """The question whether to release a hold, with the rate at which the backlog drains."""

    def __init__(self, host: Host, backlog: BacklogState) -> None:
        self._host = host
        self._backlog = backlog
        self._pace: Pace = replace(DEFAULT, rate=None)
        self._prompt = Prompt(title="release", lines=self._lines, kind=Kind.YES, adjusts=_ADJUSTS)

    def ask(self) -> None:
        """Ask."""
        release = CarryOut(self._release)
        self._host.dialog.ask(self._prompt, lambda _: self._host.request(release), adjust=self._adjust)

    @property
    def _lines(self) -> list[Content]:
        rate = "no limit" if self._pace.rate is None else f"{self._pace.rate:g}/s"
        return [
            Content(self._backlog.stopped or ""),
            Content.assemble(
                "Release it; what waits drains in order.   rate ",
                (rate, "bold"),
                (f" ({key_of(PLAN, 'faster')}/{key_of(PLAN, 'slower')})", "$text-muted"),
            ),
        ]

    def _adjust(self, action: str) -> None:
        self._pace = self._pace.faster() if action == "faster" else self._pace.slower()
        self._prompt = self._host.dialog.renew(self._prompt, self._lines)

    async def _release(self) -> None:
        released = await self._host.context.session.release(self._pace.rate)
        self._host.request(Say("Forwarding is released" if released else "Forwarding was not held any more"))
        self._host.request(ReadNow())
