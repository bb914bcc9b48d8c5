"""What is wrong when Chatwoot's API does not answer as it should, and the remedy. One place for client and probes.

Sources of the sentences that are recognised: app/controllers/concerns/access_token_auth_helper.rb,
ensure_current_account_helper.rb and request_exception_handler.rb in github.com/chatwoot/chatwoot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from relay.settings import parts_of, without_credentials

if TYPE_CHECKING:
    import httpx

_MOST_SAID = 200
_APP = re.compile(r"/app(?:/.*)?$")


class Fault(StrEnum):
    """What is wrong with an answer."""

    KEY_MISSING = "key_missing"
    KEY_WRONG = "key_wrong"
    KEY_OF_A_BOT = "key_of_a_bot"
    NO_RIGHT = "no_right"
    OTHER_ACCOUNT = "other_account"
    SUSPENDED = "suspended"
    UNAUTHORIZED = "unauthorized"
    REDIRECT = "redirect"
    WEB_PAGE = "web_page"
    NOT_FOUND = "not_found"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    FAILING = "failing"
    OTHER_FORM = "other_form"


_SAID = {
    "Invalid Access Token": Fault.KEY_WRONG,
    "Access to this endpoint is not authorized for bots": Fault.KEY_OF_A_BOT,
    "You are not authorized to do this action": Fault.NO_RIGHT,
    "You are not authorized to access this account": Fault.OTHER_ACCOUNT,
    "Account is suspended": Fault.SUSPENDED,
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A fault in words: what it is, and the remedy. Both are without a full stop."""

    fault: Fault
    sentence: str
    remedy: str
    said: str = ""

    @property
    def text(self) -> str:
        """Both in one sentence."""
        return f"{self.sentence}; {self.remedy}" if self.remedy else self.sentence


def said_in(answer: httpx.Response) -> str:
    """The sentence in a refusal's JSON: `error`, or `message` of a record that is not valid; else nothing."""
    document = json_of(answer)
    sentence = (document.get("error") or document.get("message")) if isinstance(document, dict) else None
    return sentence[:_MOST_SAID] if isinstance(sentence, str) else ""


def json_of(answer: httpx.Response) -> Any:
    """The JSON of an answer, None if it is something else."""
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def is_web_page(answer: httpx.Response) -> bool:
    """True for an answer that is HTML, as Chatwoot's app gives it on every path."""
    kind = answer.headers.get("content-type", "")
    return kind.startswith("text/html") or answer.content.lstrip()[:9].lower() in {b"<!doctype", b"<html>"}


def explanation_of(answer: httpx.Response, base_url: str, *, wanted: str = "") -> Explanation | None:
    """What is wrong with an answer of the API; None for JSON with a status of 2xx.

    `wanted` completes "it cannot …": what the request was for, for example "list webhooks".
    """
    status, said = answer.status_code, said_in(answer)
    began = f"Chatwoot answered {status}"
    if answer.is_redirect:
        return _redirect(answer, began)
    if is_web_page(answer) and (answer.is_success or status == 404):
        return web_page(base_url, began)
    if answer.is_success:
        if json_of(answer) is None:
            return Explanation(Fault.OTHER_FORM, f"{began}, but not with JSON", "check CHATWOOT_BASE_URL")
        return None
    if status == 401:
        return _unauthorized(answer, began, said, wanted)
    if status == 404:
        return _not_found(answer, began, said)
    if status == 429:
        return Explanation(Fault.RATE_LIMITED, f"{began}: its rate limit is reached", "try again in a minute", said)
    if status >= 500:
        return Explanation(Fault.FAILING, began, "check that Chatwoot runs, and the proxy in front of it", said)
    return Explanation(Fault.REFUSED, f"{began}: {said}" if said else began, "", said)


def _not_found(answer: httpx.Response, began: str, said: str) -> Explanation:
    path = answer.request.url.path
    if "/conversations/" in path:
        return Explanation(Fault.NOT_FOUND, f"{began}: it has no such conversation", "", said)
    if "/accounts/" in path:
        return Explanation(
            Fault.OTHER_ACCOUNT, f"{began}: this key has no access to that account", "check CHATWOOT_ACCOUNT_ID", said
        )
    return Explanation(Fault.NOT_FOUND, f"{began}: it has no such route", "check CHATWOOT_BASE_URL", said)


def _unauthorized(answer: httpx.Response, began: str, said: str, wanted: str) -> Explanation:
    document = json_of(answer)
    if isinstance(document, dict) and "errors" in document:
        return Explanation(
            Fault.KEY_MISSING, f"{began}: no key reached it",
            "a proxy in front of it drops the header Api-Access-Token; let it pass", said,
        )  # fmt: skip
    cannot = f"it cannot {wanted or 'do this'}"
    administrator = "set CHATWOOT_API_KEY to the access token of an administrator (Profile Settings)"
    sentence, remedy = {
        Fault.KEY_WRONG: ("it does not know this key", "check CHATWOOT_API_KEY"),
        Fault.KEY_OF_A_BOT: (f"this key is an agent bot's: {cannot}", administrator),
        Fault.NO_RIGHT: (f"this key is not an administrator's: {cannot}", administrator),
        Fault.OTHER_ACCOUNT: ("this key has no access to that account", "check CHATWOOT_ACCOUNT_ID"),
        Fault.SUSPENDED: ("the account is suspended", "have it activated again in Chatwoot's super admin console"),
    }.get(_SAID.get(said, Fault.UNAUTHORIZED), ("it asks for other credentials", "check CHATWOOT_API_KEY"))
    if _SAID.get(said) is Fault.NO_RIGHT and "/conversations/" in answer.request.url.path:
        sentence = "this key's user is no member of the conversation's inbox"
        remedy = "add the user to the inbox in Chatwoot, or use the access token of an administrator"
    return Explanation(_SAID.get(said, Fault.UNAUTHORIZED), f"{began}: {sentence}", remedy, said)


def _redirect(answer: httpx.Response, began: str) -> Explanation:
    target = parts_of(answer.headers.get("location", ""))
    if not target.hostname:
        return Explanation(
            Fault.REDIRECT, f"{began}, a redirect", "set CHATWOOT_BASE_URL to where Chatwoot itself answers"
        )
    shown = without_credentials(f"{target.scheme or 'https'}://{target.netloc}")
    return Explanation(Fault.REDIRECT, f"{began}, a redirect to {shown}", f"set CHATWOOT_BASE_URL to {shown}")


def web_page(base_url: str, began: str) -> Explanation:
    """The explanation of a web page in the place of JSON."""
    if _APP.search(urlsplit(base_url).path):
        right = without_credentials(_APP.sub("", base_url))
        remedy = f"CHATWOOT_BASE_URL is a page of the app: set it to {right}"
    else:
        remedy = "CHATWOOT_BASE_URL must be Chatwoot's own address, without a path and without a login page before it"
    return Explanation(Fault.WEB_PAGE, f"{began} with a web page, not with its API", remedy)
