"""What another program wrote into the deliveries and no HTTP header can carry stops no replay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.servers import AgentStandIn, Rows, RunningRelay

_PLANT = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, customer, finished_at, headers, body)
    SELECT given, 'dead', gen_random_uuid(), false, false, now(), %(headers)s, '{}'
      FROM unnest(%(ids)s::text[]) AS given
"""
_REPLAY = """
    SELECT relay.ask_replay(gen_random_uuid(), 'maria', '', '', NULL, 0, 0, NULL, array_agg(id), array_agg(run))
      FROM relay.deliveries
"""


async def test_what_no_header_can_carry_is_replayed_all_the_same(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> None:
    ids = ["\u00e9", "two\nlines", "a b", "", "\x1b]52;c;x\x07", "\u202e", "plain~{id}%"]
    odd = [["x-chatwoot-event", "two\nlines"], ["x-chatwoot-\u00e9", "v"], ["x-chatwoot-a b", "v"],
           ["x-chatwoot-bell", "\x07"], ["x-chatwoot-fine", "v"]]  # fmt: skip
    rows(_PLANT, {"ids": ids, "headers": json.dumps(odd)})
    await start_relay()
    rows(_REPLAY)
    await until(lambda: rows("SELECT state FROM relay.replay_plans") == ["done"], what="the replay ends")
    assert set(rows("SELECT state FROM relay.deliveries")) == {"delivered"}
    assert sorted(unquote(seen.delivery_id) for seen in agent.seen if "plain" not in seen.delivery_id) == sorted(
        ids[:-1]
    )
    assert "plain~{id}%" in {seen.delivery_id for seen in agent.seen}
    for seen in agent.seen:
        assert {name for name in seen.headers if name.startswith("x-chatwoot-")} == {
            "x-chatwoot-delivery", "x-chatwoot-fine"
        }  # fmt: skip
