"""What a Chatwoot, or a proxy in front of it, may do that its documentation does not mention. Each has a name."""

from __future__ import annotations

from enum import StrEnum


class Oddity(StrEnum):
    """One way in which the stand-in can be made to behave. `ChatwootStandIn.oddities` holds those that are on."""

    UNDERSCORES_DROPPED = "underscores-dropped"
    """nginx in front drops request headers whose names have underscores (its default; #1057, #1615)."""

    REDIRECTED = "redirected"
    """`FORCE_SSL` or a proxy answers every request with 301 to another address (config/environments/production.rb)."""

    LOGIN_PAGE = "login-page"
    """An access gate in front answers every request with 200 and a web page of its own."""

    RATE_LIMITED = "rate-limited"
    """rack-attack answers every request with 429 (config/initializers/rack_attack.rb, `req/ip`)."""

    RAILS_HEALTH = "rails-health"
    """`/rails/health` exists, as the runbook says: no version has it, a proxy can map it to Rails' health page."""

    QUEUE_FAILING = "queue-failing"
    """Redis is away: `GET /api` says so (app/controllers/api_controller.rb) and Sidekiq sends no webhook."""

    SUSPENDED = "account-suspended"
    """The account is suspended: each of its routes answers 401 (ensure_current_account_helper.rb)."""

    ATTRIBUTES_DROPPED = "attributes-dropped"
    """Unknown `content_attributes` of a new message are dropped whatever the version (message_builder.rb)."""

    ANSWER_LOST = "answer-lost"
    """The next new message is stored, and a proxy answers 504 in Chatwoot's place. Happens once."""

    TOO_MANY_MESSAGES = "too-many-messages"
    """The conversation is above `CONVERSATION_MESSAGE_PER_MINUTE_LIMIT`: 422 (app/models/message.rb)."""

    PRIVATE_ADDRESSES_REFUSED = "private-addresses-refused"
    """Webhooks to private addresses are never sent (since 4.14; #14489, #14494, #15270).

    This is the default of such a Chatwoot. The stand-in, which lives on the loopback address, runs as if
    `SAFE_FETCH_ALLOW_PRIVATE_NETWORK=true` were set until this is on.
    """

    BODIES_REENCODED = "bodies-reencoded"
    """Something between Chatwoot and the receiver parses a webhook's JSON and writes it anew, after it was signed."""

    API_INBOX_TOO = "api-inbox-too"
    """The inbox is an API inbox with a webhook of its own: a message arrives twice, with two secrets and two ids."""

    AGENT_BOT_TOO = "agent-bot-too"
    """An agent bot is connected to the inbox, with the same URL: it posts messages with its own secret, and retries."""

    AUTOMATION_TOO = "automation-too"
    """An automation rule posts a conversation payload for each message: never signed (automation_rule_listener.rb)."""

    NESTED_UNRELIABLE = "nested-unreliable"
    """`conversation.messages[]` holds whatever is newest when the webhook is posted, not its message (PR 15602)."""
