"""Figures as text: the same for the command line and the console."""

from __future__ import annotations

from datetime import UTC, datetime

from relay.domain.format import (
    NO_DATA,
    average,
    clock,
    data_size,
    day_clock,
    exact_clock,
    figure,
    hourly,
    in_flight,
    measured,
    milliseconds,
    percent,
    plural,
    span,
    utc_clock,
    verb,
)

NOON = datetime(2026, 11, 23, 12, 0, 1, 45_000, tzinfo=UTC)


def test_figures_are_written_in_their_units() -> None:
    written = {
        percent(38.024): "38.0 %", percent(38.024, decimals=2): "38.02 %", percent(None): "–",
        percent(None, missing=NO_DATA): "no data", average(1.625): "1.62", average(None): "–",
        milliseconds(145.4): "145 ms", milliseconds(12_400): "12.4 s", milliseconds(None): "–",
        span(4.9): "4s", span(1_799): "29m", span(11_400): "3h10m", span(187_200): "2d4h", span(-1): "0s",
        plural(1, "dead letter"): "1 dead letter", plural(1_204, "dead letter"): "1,204 dead letters",
        plural(2, "delivery"): "2 deliveries", plural(2, "day"): "2 days",
        f"{verb(1, 'wait')} {verb(2, 'wait')} {verb(0, 'have')} {verb(1, 'have')}": "waits wait have has",
        hourly(25.4): "25 an hour", hourly(0.2): "5 a day",
        in_flight(4, 0.94): "4 in flight, the oldest for 0.9 s", in_flight(0, None): "0 in flight",
    }  # fmt: skip
    assert {found: wanted for found, wanted in written.items() if found != wanted} == {}


def test_times_are_written_in_utc() -> None:
    assert (clock(NOON), clock(None)) == ("12:00:01", "–")
    assert (utc_clock(NOON), exact_clock(NOON)) == ("12:00:01Z", "12:00:01.045")
    assert day_clock(NOON, NOON) == "12:00:01"
    assert day_clock(NOON, NOON.replace(day=24)) == "Nov 23 12:00"


def test_an_alerts_value_is_rounded_in_columns_and_exact_in_sentences() -> None:
    written = {"%": ("38.0 %", "38.02 %"), "min": ("38m", "38.02 min"), "s": ("38s", "38.02 s"),
               "ms": ("38 ms", "38.02 ms"), "": ("38.02", "38.02")}  # fmt: skip
    assert {unit: (measured(38.02, unit), figure(38.02, unit)) for unit in written} == written
    assert (measured(211, ""), figure(211, "")) == ("211", "211")
    assert (measured(None, "%"), figure(None, "%")) == ("–", "no data")


def test_sizes_are_short() -> None:
    sizes = [0, 512, 1023, 1024, 35_021, 1 << 20, 268_435_456, 3 << 30]
    shown = ["0 B", "512 B", "1023 B", "1.0 KiB", "34.2 KiB", "1.0 MiB", "256.0 MiB", "3.0 GiB"]
    assert [data_size(one) for one in sizes] == shown
