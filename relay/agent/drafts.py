"""Drafts: by a language model behind any OpenAI-compatible endpoint, or by a template that says that it is one.

What a customer wrote is data: it stands in messages of its own, and nothing in it decides where a draft goes.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import httpx

from relay.domain.retry import failure_of
from relay.errors import ConfigurationError, RelayError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from relay.chatwoot.client import Message
    from relay.settings import Settings

CONTEXT_MESSAGES = 12
_CONTEXT_CHARS = 4_000
_DRAFT_CHARS = 8_000


class DraftFailed(RelayError):
    """No draft could be made now; trying again may help."""


class TemplateDrafter:
    """Needs nothing and knows nothing."""

    needs_context = False

    async def draft(self, name: str, text: str, before: Sequence[Message]) -> str:
        """A polite nothing, said to be one."""
        del text, before
        greeting = f"Hello {name}" if name else "Hello"
        return (
            f"[Template draft: no language model is configured, set LLM_BASE_URL]\n\n{greeting}, thank you for your "
            "message. We are looking into it and will come back to you shortly."
        )

    async def close(self) -> None:
        """There is nothing to let go of."""


class ModelDrafter:
    """Asks a chat model.

    Raises:
        ConfigurationError: `LLM_MODEL` is not set, or the prompt's file cannot be read.
    """

    needs_context = True

    def __init__(self, settings: Settings) -> None:
        if not settings.llm_model:
            raise ConfigurationError("LLM_MODEL: not set; with LLM_BASE_URL it names the model to ask")
        self._prompt = system_prompt(settings.agent_prompt_file)
        self._model = settings.llm_model
        key = settings.llm_api_key
        self._client = httpx.AsyncClient(
            base_url=settings.llm_base_url or "",
            headers={} if key is None else {"authorization": f"Bearer {key.get_secret_value()}"},
            timeout=settings.llm_timeout_ms / 1000,
        )

    async def draft(self, name: str, text: str, before: Sequence[Message]) -> str:
        """The model's reply.

        Raises:
            DraftFailed: it does not answer in time, refuses, or says nothing.
        """
        del name
        said = [
            {"role": "user" if message.incoming else "assistant", "content": message.content[:_CONTEXT_CHARS]}
            for message in before[-CONTEXT_MESSAGES:]
            if message.content and not message.private
        ]
        messages = [{"role": "system", "content": self._prompt}, *said]
        if not said or said[-1] != {"role": "user", "content": text[:_CONTEXT_CHARS]}:
            messages.append({"role": "user", "content": text[:_CONTEXT_CHARS]})
        try:
            answer = await self._client.post("/chat/completions", json={"model": self._model, "messages": messages})
        except httpx.HTTPError as error:
            raise DraftFailed(f"The language model does not answer ({failure_of(error)})") from error
        if not answer.is_success:
            raise DraftFailed(f"The language model answered {answer.status_code}")
        return _content(answer)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()


def _content(answer: httpx.Response) -> str:
    try:
        document: Any = answer.json()
        content = document["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DraftFailed("The language model's answer has not the form of a chat completion") from error
    if not isinstance(content, str) or not content.strip():
        raise DraftFailed("The language model said nothing")
    return content.strip()[:_DRAFT_CHARS]


def system_prompt(path: Path | None) -> str:
    """The team's prompt, or the one that comes along.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    if path is None:
        return (resources.files("relay.agent") / "prompt.md").read_text(encoding="utf-8")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"AGENT_PROMPT_FILE={path}: cannot be read ({error})") from error


def make_drafter(settings: Settings) -> TemplateDrafter | ModelDrafter:
    """The model if one is configured, else the template."""
    return TemplateDrafter() if settings.llm_base_url is None else ModelDrafter(settings)
