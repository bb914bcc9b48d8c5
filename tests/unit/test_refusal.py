"""Refusals of `dashboard_facts` as sentences, how long a batch may take, and what of an error goes into a log."""

from __future__ import annotations

import pytest

from relay.forwarding.finisher import Pace
from relay.store.refusal import explain


@pytest.mark.parametrize(
    ("reason", "cause", "remedy"),
    [
        ("23505 constraint once", "a unique constraint or index allows one fact of a kind (23505, constraint once)",
         "DROP CONSTRAINT"),
        ("22001 column fact_type character varying(20)",
         "a value is too long for its column (22001, column fact_type character varying(20))", "TYPE text"),
        ("P0001 trigger audit", "trigger audit fails (P0001, trigger audit)", "DISABLE TRIGGER audit"),
        ('P0001 trigger "My audit" constraint c', 'trigger "My audit" fails (P0001, trigger "My audit" constraint c)',
         'DISABLE TRIGGER "My audit"'),
        ("42501 permission denied for table dashboard_facts",
         "the relay's role may not insert them (42501, permission denied for table dashboard_facts)", "GRANT INSERT"),
        ("57014", "they are not inserted in time (57014)", "slow"),
        (None, "they are not inserted in time", "slow"),
        ("XX000", "Postgres refuses them (XX000)", "SQLSTATE XX000"),
    ],
    ids=str,
)  # fmt: skip
def test_a_reason_is_a_sentence_with_a_remedy(reason: str | None, cause: str, remedy: str) -> None:
    explained = explain(reason)
    assert explained[0] == cause
    assert remedy in explained[1]


def test_a_batch_may_take_four_times_what_is_usual_within_bounds() -> None:
    pace = Pace(least_s=0.3, most_s=4)
    assert pace.limit_s == 0.3
    for seconds in (0.01, 0.01, 9.0):
        pace.observe(seconds)
    assert pace.limit_s == 0.3
    for _ in range(15):
        pace.observe(0.5)
    assert pace.limit_s == 2.0
    for _ in range(15):
        pace.observe(60)
    assert pace.limit_s == 4
