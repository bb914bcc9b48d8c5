"""What Chatwoot does with the text of an outgoing message: Liquid runs, and a mention notifies a person.

Sources: app/models/concerns/liquidable.rb, app/services/messages/mention_service.rb. Only the drops that a test
needs exist; unknown ones render as nothing, as in Liquid.
"""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"(`.*?`)", re.DOTALL)
_LIQUID = re.compile(r"\{\{(.*?)\}\}|\{%.*?%\}", re.DOTALL)
_OPENED = re.compile(r"\{\{|\{%")
_MENTION = re.compile(r"\(mention://(?:user|team)/(\d+)/.+?\)")
_DROPS = {
    "agent.name": "Demo Agent",
    "agent.email": "agent@acme.example",
    "contact.name": "Maria Silva",
    "contact.email": "maria@customer.example",
    "inbox.name": "Acme Support",
    "account.name": "Acme Inc",
}


def after_liquid(content: str) -> str:
    """`content` as Chatwoot stores it. Code in backticks stays as it is, and so does all of it if Liquid is broken."""
    parts = _CODE.split(content)
    rendered = [part if index % 2 else _LIQUID.sub(_value, part) for index, part in enumerate(parts)]
    if any(_OPENED.search(part) for index, part in enumerate(rendered) if not index % 2):
        return content  # a tag that never ends is a Liquid::Error, which Chatwoot swallows
    return "".join(rendered)


def _value(found: re.Match[str]) -> str:
    return _DROPS.get((found.group(1) or "").strip(), "")


def mentioned(message: dict[str, Any]) -> list[int]:
    """The ids of those whom a message notifies: the users and teams that a private note mentions."""
    if not message["private"]:
        return []
    return sorted({int(number) for number in _MENTION.findall(message["content"] or "")})
