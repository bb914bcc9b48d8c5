"""Untrusted text → text that is safe to show: nothing in it can steer a terminal or turn the reading direction.

Control characters become visible pictures (`␛`), invisible and bidirectional ones their names (`<U+202E>`). What
is too long is cut, with what is missing said. Knows nothing of widgets or markup: whoever shows the result must
not parse it.
"""

from __future__ import annotations

import re
import unicodedata

from relay.store.actions import signed

_MORE = "… {} more"
HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\ue000-\uf8ff"
    "\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
"""Every character that is not shown as it is. U+200D is among them: terminals disagree on how wide is what it joins."""


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"<U+{code:04X}>"


def clean(text: str, *, limit: int = 500, newlines: bool = False) -> str:
    """The first `limit` characters of `text`, made safe. With `newlines` line ends stay and tabs become spaces.

    Takes time for what is shown, not for what is cut off.
    """
    head = text[:limit]
    if newlines:
        head = head.replace("\r\n", "\n").replace("\t", "    ")
        shown = "\n".join(HARMFUL.sub(_picture, line) for line in head.split("\n"))
    else:
        shown = HARMFUL.sub(_picture, head)
    missing = len(text) - len(head)
    return shown + _MORE.format(_size(missing)) if missing > 0 else shown


def signed_name(operator: str, login: str | None, *, limit: int) -> str:
    """An operator's name made safe, with the database login beside it where the two differ; each cut at `limit`."""
    return signed(clean(operator, limit=limit), None if login is None else clean(login, limit=limit))


def _size(characters: int) -> str:
    if characters < 10_000:
        return f"{characters:,} characters"
    return f"{characters / 1e6:.1f} MB" if characters >= 1e6 else f"{characters // 1000} kB"


def clean_json(body: bytes, *, limit: int) -> str:
    """A payload as indented JSON, its first `limit` characters or so, made safe. What is no JSON is shown as it is."""
    text = body[: limit * 4].decode("utf-8", "replace")
    pretty = pretty_json(text[:limit]) if len(text) > limit else pretty_json(text)
    shown = clean(pretty, limit=limit * 3, newlines=True)
    missing = len(body) - len(text[:limit].encode())
    return f"{shown}\n{_MORE.format(_size(missing))}" if missing > 0 else shown


_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{},:]|[^\s"\[\]{},:]+', re.DOTALL)


def pretty_json(text: str) -> str:
    """JSON `text` indented by two, every name, number and string as it was written; also a cut-off beginning of it."""
    parts: list[str] = []
    depth = 0
    pieces = _PIECE.findall(text)
    for place, piece in enumerate(pieces):
        following = pieces[place + 1] if place + 1 < len(pieces) else ""
        if piece in "[{":
            parts.append(piece)
            if following and following in "]}":
                continue
            depth += 1
            parts.append("\n" + "  " * min(depth, 40))
        elif piece in "]}":
            if place and pieces[place - 1] in "[{":
                parts.append(piece)
                continue
            depth = max(0, depth - 1)
            parts.append("\n" + "  " * min(depth, 40) + piece)
        elif piece == ",":
            parts.append(",\n" + "  " * min(depth, 40))
        elif piece == ":":
            parts.append(": ")
        else:
            parts.append(piece)
    return "".join(parts)


def is_safe(text: str) -> bool:
    """True if `clean` would leave `text` as it is; line ends apart."""
    return not HARMFUL.search(text.replace("\n", "")) and all(
        unicodedata.category(c) not in {"Cc", "Cs"} or c == "\n" for c in text
    )
