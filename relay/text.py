"""Untrusted text → safe text: the one place where text from outside is made fit for a terminal, a log or a file.

`clean` is for showing: control characters become visible pictures (`␛`), invisible and bidirectional ones their
names (`<U+202E>`), and what is too long is cut, with the amount that is missing. `escaped` is for log lines and
error messages: the same characters become `\\uXXXX`. Neither handles markup: a widget that gets the result must not
parse it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

SHOWN_CHARS = 500
"""How much of one value is shown unless the caller asks for more or less."""

_DEEPEST = 20
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MORE = "… {} more"
HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\ud800-\udfff\ue000-\uf8ff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
"""Every character that is not shown as it is. U+200D is among them: terminals disagree on how wide is what it joins."""


def _is_plain(text: str) -> bool:
    """True for printable ASCII, which nearly all text is: it needs no search for `HARMFUL`, which takes longer."""
    return text.isascii() and text.isprintable()


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"<U+{code:04X}>"


def clean(text: str, *, limit: int | None = SHOWN_CHARS, newlines: bool = False) -> str:
    """The first `limit` characters of `text` (None: all of it), made safe to show.

    With `newlines` line ends stay and tabs become spaces. Takes time for what is shown, not for what is cut off.
    """
    head = text[:limit]
    if _is_plain(head):
        shown = head
    elif newlines:
        head = head.replace("\r\n", "\n").replace("\t", "    ")
        shown = "\n".join(HARMFUL.sub(_picture, line) for line in head.split("\n"))
    else:
        shown = HARMFUL.sub(_picture, head)
    missing = 0 if limit is None else len(text) - limit
    return shown + _MORE.format(_size(missing)) if missing > 0 else shown


def clean_value(value: Any, *, limit: int | None = SHOWN_CHARS, newlines: bool = False, _depth: int = 0) -> Any:
    """`value` with every text in it cleaned: of lists and tuples the items, of dicts the keys as well.

    With `newlines` a text that is no item keeps its line ends. Other values are returned as they are. Lists and dicts
    that nest more than 20 deep become `…`.
    """
    if isinstance(value, str):
        return clean(value, limit=limit, newlines=newlines)
    if not isinstance(value, (list, tuple, dict)):
        return value
    if _depth >= _DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {
            clean_value(key, limit=limit): clean_value(item, limit=limit, _depth=_depth + 1)
            for key, item in value.items()
        }
    items = [clean_value(item, limit=limit, _depth=_depth + 1) for item in value]
    return tuple(items) if isinstance(value, tuple) else items


def escaped(text: str) -> str:
    r"""`text` in one line: line ends and tabs as `\n`, `\r`, `\t`, every other harmful character as `\uXXXX`."""
    return text if _is_plain(text) else HARMFUL.sub(_escape, text)


def unicode_escaped(text: str) -> str:
    r"""`text` with every harmful character as `\uXXXX`: two of them, a surrogate pair, beyond U+FFFF (as in JSON)."""
    return text if _is_plain(text) else HARMFUL.sub(_unicode_escape, text)


def _escape(match: re.Match[str]) -> str:
    return _SHORT_ESCAPES.get(match.group()) or _unicode_escape(match)


def _unicode_escape(match: re.Match[str]) -> str:
    return _unicode_escape_of(match.group())


def _unicode_escape_of(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:
        high, low = divmod(code - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
    return f"\\u{code:04x}"


def escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    r"""The error handler of a stream whose encoding lacks a character: `\uXXXX`, which is right within JSON too.

    Raises:
        UnicodeError: it is not about encoding.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_unicode_escape_of, error.object[error.start : error.end])), error.end


def json_text(value: object, *, indent: int | None = None) -> str:
    r"""`value` as JSON. What is readable stays readable; harmful characters in strings are `\uXXXX` escapes.

    So the text is safe to print, and a JSON parser gets the exact values back. A time becomes RFC 3339 text in UTC,
    anything else that is no JSON value its `str()`.
    """
    document = json.dumps(value, indent=indent, ensure_ascii=False, default=_as_json)
    return "\n".join(escaped(line) for line in document.split("\n"))  # json.dumps writes line ends only between values


def _as_json(value: object) -> str:
    return rfc3339(value) if isinstance(value, datetime) else str(value)


def rfc3339(moment: datetime) -> str:
    """`2026-11-27T14:02:11.045Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


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


_SURROGATES = re.compile("[\ud800-\udfff]")


def is_text(text: str) -> bool:
    """False if it holds lone surrogates, as Python makes of bytes of the environment that are not UTF-8."""
    return text.isascii() or not _SURROGATES.search(text)


_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]")
_MENTION = re.compile(r"\[([^\[\]]*)\]\(\s*mention://[^()]*\)", re.IGNORECASE)
_MENTION_SCHEME = re.compile(r"mention(?=://)", re.IGNORECASE)
_LIQUID = re.compile(r"\{(?=[{%])")
CUT = "… (cut)"


def valid_unicode(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which JSON can carry and UTF-8 cannot."""
    return text if text.isascii() else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def chatwoot_text(text: str, *, limit: int) -> str:
    """`text` as Chatwoot shows it and does nothing else with it: at most `limit` characters, no mention, no Liquid.

    Chatwoot runs `{{…}}` and `{%…%}` in outgoing messages, private notes included, and notifies whom
    `[Bob](mention://user/1/Bob)` names (CONTRACT, "content is interpreted"). Joiners and other characters that
    languages need stay.
    """
    kept = _NO_TEXT.sub("", text[: 2 * limit].replace("\r\n", "\n"))
    kept = _MENTION_SCHEME.sub("mention ", _MENTION.sub(r"\1", kept))
    kept = _LIQUID.sub("{ ", kept).strip()
    return kept if len(kept) <= limit and len(text) <= 2 * limit else kept[: limit - len(CUT)] + CUT


_CHAT_MARKUP = re.compile(
    r"""
    <(?=\S)                                             # Slack: <!channel>, <@U1>, <https://…|text>; Discord: <@&1>
    | &(?=(?:amp|lt|gt);)                               # so that no entity of the text's own is decoded
    | (?<![^\W_])@(?=(?:channel|here|all|everyone)\b)    # Mattermost, Rocket.Chat, Discord
    | \](?=\()                                          # a link in Markdown: [text](https://…)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CHAT_ESCAPES = {"<": "&lt;", "&": "&amp;", "@": "@ ", "]": "] "}


def chat_text(text: str) -> str:
    """`text` for a channel of Slack or its like: nothing in it notifies people or hides where a link leads.

    Slack decodes `&lt;` and `&amp;` and asks for them in place of `<` and `&` (docs.slack.dev, "Formatting message
    text"). A `<` before a space begins nothing, and stays.
    """
    return _CHAT_MARKUP.sub(lambda found: _CHAT_ESCAPES[found.group()], text)


MASK = "(not shown)"
"""What is shown in place of a secret."""

_SECRET = re.compile(
    r"""
    (?<=://) [^\s/@"']{1,500} @ (?=\S)                                        # user:password@ in a URL
    | (?P<scheme> \b(?:bearer|basic|token) \s+ ) (?=\S*[0-9=]) [a-z0-9._~+/=-]{8,}
    | (?P<name>
          (?:api[_-]?key|access[_-]?key|private[_-]?key|token|secret|passw(?:or)?d|passphrase|signature|authorization|cookie)
          [a-z0-9_-]{0,10} ["']? \s* [:=] \s* (?:(?:bearer|basic|token)\s+)? )
      (?!\d+\b|(?:is|was|not|no|invalid|missing|expired|required|null|none|true|false|must|expected)\b)
      (?: "[^"]{1,500}" | '[^']{1,500}' | [^\s"'&,;)}\]]{3,} )
    | \b (?: [spr]k[-_] | (?: ghp|gho|ghs|github_pat|glpat|xox[abps]|akia|aiza ) [-_]? ) (?=\S*[0-9]) [a-z0-9_-]{16,}
    | \b eyj[a-z0-9_-]{10,} \. [a-z0-9_-]{4,} (?: \.[a-z0-9_-]* )?              # a JSON Web Token
    """,
    re.IGNORECASE | re.VERBOSE,
)


_SECRET_HINTS = (
    "://", "bearer", "basic", "token", "key", "secret", "passw", "passphrase", "signature", "authorization", "cookie",
    "sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "ghp", "gho", "ghs", "github_pat", "glpat", "xox", "akia", "aiza", "eyj",
)  # fmt: skip
"""One of these is in every text that `_SECRET` matches."""


def without_secrets(text: str) -> str:
    """`text` with `MASK` for what may be a credential: in URLs, after names such as `token=`, and known forms."""
    lower = text.lower()
    if not any(hint in lower for hint in _SECRET_HINTS):  # nearly all text: the search takes longer
        return text
    return _SECRET.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    if match.group().endswith("@"):
        return f"{MASK}@"
    return f"{match['scheme'] or match['name'] or ''}{MASK}"


def is_safe(text: str) -> bool:
    """True if `clean` would leave `text` as it is; line ends apart."""
    return not HARMFUL.search(text.replace("\n", "")) and all(
        unicodedata.category(c) not in {"Cc", "Cs"} or c == "\n" for c in text
    )
