"""Who may ask what: Chatwoot's access tokens, their roles, and the words in which it refuses.

Sources: app/controllers/concerns/access_token_auth_helper.rb, ensure_current_account_helper.rb and
request_exception_handler.rb; app/policies/webhook_policy.rb. A refusal for want of a right is 401, not 403.
"""

from __future__ import annotations

from enum import Enum, auto

from aiohttp import web


class Role(Enum):
    """What an access token belongs to."""

    ADMINISTRATOR = auto()
    AGENT = auto()  # an agent who is a member of the inbox
    OUTSIDER = auto()  # an agent who is a member of another inbox
    BOT = auto()  # an agent bot
    STRANGER = auto()  # a user of another account


class Need(Enum):
    """What a route asks for."""

    ACCOUNT = auto()
    MEMBER = auto()  # of the conversation's inbox
    ADMINISTRATOR = auto()
    NEW_MESSAGE = auto()  # a member, or an agent bot


def refused(status: int, sentence: str) -> web.Response:
    """A refusal in Chatwoot's form."""
    return web.json_response({"error": sentence}, status=status)


def refusal(
    role: Role | None, need: Need, *, token: str | None, account_id: str, own: int, others: frozenset[int]
) -> web.Response | None:
    """Why the owner of `token` (a `role`, None for an unknown token) gets no answer; None if they get one.

    `own` is the stand-in's account, and `others` are accounts that exist besides it.
    """
    if not token:
        sentence = "You need to sign in or sign up before continuing."
        return web.json_response({"errors": [sentence]}, status=401)
    if role is None:
        return refused(401, "Invalid Access Token")
    if role is Role.BOT and need is not Need.NEW_MESSAGE:
        return refused(401, "Access to this endpoint is not authorized for bots")
    account = int(account_id) if account_id.isdigit() else None
    known = account == own if role is not Role.STRANGER else account in others
    if not known:
        exists = account == own or account in others
        if exists and need is not Need.ACCOUNT:
            return refused(401, "You are not authorized to access this account")
        return refused(404, "Resource could not be found")
    if role is Role.STRANGER:
        return refused(404, "Resource could not be found")
    allowed = {
        Need.ACCOUNT: {Role.ADMINISTRATOR, Role.AGENT, Role.OUTSIDER},
        Need.MEMBER: {Role.ADMINISTRATOR, Role.AGENT},
        Need.NEW_MESSAGE: {Role.ADMINISTRATOR, Role.AGENT, Role.BOT},
        Need.ADMINISTRATOR: {Role.ADMINISTRATOR},
    }[need]
    return None if role in allowed else refused(401, "You are not authorized to do this action")
