"""JSON as Rails' `to_json` writes it, which is what Chatwoot signs and sends."""

from __future__ import annotations

import json

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def rails_json(payload: object) -> bytes:
    """`payload` as compact JSON in UTF-8, with `<`, `>`, `&`, U+2028 and U+2029 escaped."""
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_ESCAPES).encode()
