"""The names of keys: Textual's, as people write them, and which keys every terminal passes on. Pure."""

from __future__ import annotations

import re

_TYPED = frozenset(
    {
        "space", "slash", "asterisk", "question_mark", "right_square_bracket", "left_square_bracket", "plus",
        "equals_sign", "minus", "colon",
    }
)  # fmt: skip
"""Keys with a name that type a character, and that the key map uses."""
_PASSED = re.compile(
    r"[0-9A-Za-z]|ctrl\+[abcdefgklnoprstuvwxyz]|f([1-9]|1[0-2])|escape|enter|tab|backspace|delete|insert|home|end|page(up|down)"
    rf"|up|down|left|right|{'|'.join(sorted(_TYPED))}"
)
"""Keys that every terminal and tmux pass on: ctrl+h, ctrl+i, ctrl+j and ctrl+m are other keys to them, and ctrl+q is
Textual's.
"""
_MARKS = {
    "exclamation_mark": "!", "quotation_mark": '"', "number_sign": "#", "dollar_sign": "$", "percent_sign": "%",
    "ampersand": "&", "apostrophe": "'", "left_parenthesis": "(", "right_parenthesis": ")", "comma": ",",
    "full_stop": ".", "semicolon": ";", "less_than_sign": "<", "greater_than_sign": ">", "at": "@", "backslash": "\\",
    "circumflex_accent": "^", "underscore": "_", "grave_accent": "`", "left_curly_bracket": "{", "vertical_line": "|",
    "right_curly_bracket": "}", "tilde": "~",
}  # fmt: skip
"""Textual's names of the characters that the key map does not use, but the operator may."""
_SHOWN_KEYS = {
    "slash": "/",
    "asterisk": "*",
    "question_mark": "?",
    "right_square_bracket": "]",
    "left_square_bracket": "[",
    "escape": "esc",
    "left": "←",
    "up": "↑",
    "down": "↓",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "f1": "F1",
    "f2": "F2",
    "f8": "F8",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "colon": ":",
}


def shown_key(key: str) -> str:
    """Return how a key is written on the screen: `/` for `slash`."""
    if key in _SHOWN_KEYS:
        return _SHOWN_KEYS[key]
    return key.upper() if re.fullmatch(r"f\d+", key) else _MARKS.get(key, key)


def is_passed_on(key: str) -> bool:
    """Return True if every terminal and tmux pass this key on."""
    return _PASSED.fullmatch(key) is not None or key in _MARKS


def types_character(key: str) -> bool:
    """Return True if this key types a character into a text."""
    return len(key) == 1 or key in _TYPED or key in _MARKS


def character_of(key: str) -> str | None:
    """Return the character that a key types; None if it types none."""
    if not types_character(key):
        return None
    return " " if key == "space" else shown_key(key)


def key_named(text: str) -> str:
    """Return Textual's name of a key as people write it: `slash` for `/`, `pagedown` for `PgDn`."""
    named = {shown.lower() if len(shown) > 1 else shown: key for key, shown in _SHOWN_KEYS.items()}
    named |= {mark: key for key, mark in _MARKS.items()} | {" ": "space"}
    return named.get(text if len(text) == 1 else text.lower(), text if len(text) == 1 else text.lower())
