"""A stand-in Chatwoot that answers as Chatwoot's source and issue tracker say, its refusals and oddities included.

`stand_in` is the server, `access` decides who may ask what, `finders` which messages a request gets, `content` does
what Chatwoot does to a note's text, `webhooks` posts the webhooks, and `oddities` names what can be switched on. A fact
that decides an answer is written beside the code that gives it, with its source: a path in
github.com/chatwoot/chatwoot, or an issue there (`#15920`).
"""

from relay.chatwoot.rails import rails_json
from relay.chatwoot.samples import EVENTS, documented_payload
from relay.demo.chatwoot.oddities import Oddity
from relay.demo.chatwoot.stand_in import ChatwootStandIn
from relay.demo.chatwoot.webhooks import Sent

__all__ = ["EVENTS", "ChatwootStandIn", "Oddity", "Sent", "documented_payload", "rails_json"]
