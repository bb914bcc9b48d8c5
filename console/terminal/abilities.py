"""What the terminal that the console runs on can show, from its name and the locale."""

from __future__ import annotations

import locale
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_OLD_TERMINALS = ("dumb", "vt1", "vt2", "vt52", "ansi", "cons25")
"""Beginnings of the names of terminals that show ASCII alone."""
_MONO_TERMINALS = ("dumb", "vt1", "vt2", "vt52")
"""Beginnings of the names of terminals without colours, as terminfo has them."""

_UTF8 = {"utf8", "cp65001"}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a terminal shows: ASCII alone, and colours or none."""

    ascii_only: bool
    mono: bool


def abilities_of(environment: Mapping[str, str], encoding: str | None) -> Abilities:
    """Return what the terminal shows, from its name, the locale and the `encoding` of the output.

    Python's UTF-8 mode hides a locale that was asked for, C or one that is not installed, so the variables count too.
    """
    term = environment.get("TERM", "dumb")
    asked = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    charset = asked.partition(".")[2].partition("@")[0]
    is_utf8 = all(name.lower().replace("-", "") in _UTF8 for name in (encoding or "", charset or "utf8"))
    is_old = term.startswith(_OLD_TERMINALS)
    return Abilities(
        ascii_only=not is_utf8 or is_old or asked in {"C", "POSIX"},
        mono=bool(environment.get("NO_COLOR")) or term.startswith(_MONO_TERMINALS) or term.endswith(("-m", "-mono")),
    )


def output_encoding() -> str:
    """Return the encoding that the locale asks for."""
    return locale.getpreferredencoding(do_setlocale=False)
