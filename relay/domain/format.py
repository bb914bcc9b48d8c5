"""Formats figures for people: percentages, durations, times, counts. The command line and the console use it alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

DASH = "–"
"""Shown in a column where there is no data."""

NO_DATA = "no data"
"""Shown in a sentence where there is no data."""


def percent(value: float | None, *, decimals: int = 1, missing: str = DASH) -> str:
    """`71.4 %`."""
    return missing if value is None else f"{value:.{decimals}f} %"


def average(value: float | None, *, missing: str = DASH) -> str:
    """`1.62`."""
    return missing if value is None else f"{value:.2f}"


def milliseconds(value: float | None, *, missing: str = DASH) -> str:
    """`145 ms`; from ten seconds on `12.4 s`."""
    if value is None:
        return missing
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def span(seconds: float | None) -> str:
    """A duration in at most its two largest units: `4s`, `29m`, `3h10m`, `2d4h`."""
    if seconds is None:
        return DASH
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if hours < 1:
        return f"{minutes}m"
    if days < 1:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{days}d{hours % 24}h"


def clock(moment: datetime | None) -> str:
    """`14:02:11`, in UTC."""
    return DASH if moment is None else f"{moment:%H:%M:%S}"


def zone(moment: datetime) -> str:
    """`Z` for a time in UTC, else its offset: `+02`, `+05:30`."""
    offset = f"{moment:%z}"
    if offset in {"", "+0000"}:
        return "Z"
    return offset[:3] if offset.endswith("00") else f"{offset[:3]}:{offset[3:]}"


def utc_clock(moment: datetime) -> str:
    """`14:02:11Z`: in sentences, where nothing else says that it is UTC; the offset for a time in another zone."""
    return f"{clock(moment)}{zone(moment)}"


def minute_clock(moment: datetime) -> str:
    """`14:02Z`."""
    return f"{moment:%H:%M}{zone(moment)}"


def full_time(moment: datetime | None) -> str:
    """`2026-11-23 14:02:11Z`."""
    return DASH if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}{zone(moment)}"


def exact_clock(moment: datetime) -> str:
    """`14:02:11.045`."""
    return f"{clock(moment)}.{moment.microsecond // 1000:03d}"


def day_clock(moment: datetime | None, now: datetime) -> str:
    """`14:02:11`, or `Nov 22 14:02` for a day other than that of `now`."""
    if moment is None or moment.date() == now.date():
        return clock(moment)
    return f"{moment:%b %d %H:%M}"


def count(number: int) -> str:
    """`8,204`."""
    return f"{number:,}"


def clipped(text: str, most: int) -> str:
    """The first characters of `text`, `most` of them with the `…` that stands for the rest."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plural(number: int, noun: str) -> str:
    """`1 dead letter`, `204 dead letters`; `y` becomes `ies`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{number:,} {noun}s"


def verb(number: int, word: str) -> str:
    """The verb of a counted noun: `1 waits`, `2 wait`; `are` and `have` become `is` and `has`."""
    return word if number != 1 else {"are": "is", "were": "was", "have": "has"}.get(word, f"{word}s")


def data_size(number: int) -> str:
    """`512 B`, `34.2 KiB`, `1.0 MiB`."""
    value, units = float(number), ["KiB", "MiB", "GiB", "TiB"]
    if value < 1024:
        return f"{number} B"
    while value >= 1024 and len(units) > 1:
        value /= 1024
        unit = units.pop(0)
    return f"{value:.1f} {unit}"


def measured(value: float | None, unit: str) -> str:
    """The value of an alert rule in its unit, rounded as columns show it: `38.0 %`, `29m`, `1,204`."""
    if value is None:
        return DASH
    if unit == "%":
        return percent(value)
    if unit == "min":
        return span(value * 60)
    if unit == "s":
        return span(value)
    if unit == "ms":
        return milliseconds(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:.2f}"


def figure(value: float | None, unit: str) -> str:
    """The value of an alert rule with its unit, as notifications and reports give it: `38.02 %`, `29.4 min`."""
    return NO_DATA if value is None else f"{f'{value:.2f}'.rstrip('0').rstrip('.')} {unit}".strip()


def hourly(rate: float) -> str:
    """`25 an hour`; of few, `7 a day`."""
    return f"{rate:,.0f} an hour" if rate >= 2 else f"{24 * rate:.0f} a day"


def in_flight(number: int, oldest_s: float | None) -> str:
    """`4 in flight, the oldest for 0.9 s`."""
    return f"{number} in flight" + ("" if oldest_s is None else f", the oldest for {max(0.0, oldest_s):.1f} s")
