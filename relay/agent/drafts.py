"""Drafts: by a language model behind any OpenAI-compatible endpoint, or by a template that says that it is one.

What a customer wrote is data: it is sent in messages of its own, and nothing in it decides where a draft goes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import httpx

from relay import http_client
from relay.agent.failures import DraftFailed, model_refused
from relay.domain.retry import failure_of, retry_after_ms
from relay.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from relay.agent.prompt import Request, Turn
    from relay.settings import Settings


class TemplateDrafter:
    """Drafts the same polite sentence for every message."""

    needs_context = False

    async def draft(self, request: Request) -> str:
        """The template, which says that it is one."""
        greeting = f"Hello {request.name}" if request.name else "Hello"
        return (
            f"[Template draft: no language model is configured, set LLM_BASE_URL]\n\n{greeting}, thank you for your "
            "message. We are looking into it and will come back to you shortly."
        )

    async def close(self) -> None:
        """Has nothing to close."""


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
        self._client = http_client.client(
            base_url=settings.llm_base_url or "",
            headers={} if key is None else {"authorization": f"Bearer {key.get_secret_value()}"},
            timeout=settings.llm_timeout_ms / 1000,
        )

    async def draft(self, request: Request) -> str:
        """The model's reply. A model that refuses a request with images is asked again without them.

        Raises:
            DraftFailed: it does not answer in time, refuses, or says nothing.
        """
        try:
            return await self._ask(request, images=True)
        except DraftFailed as error:
            if error.status >= 500 or not any(turn.images for turn in request.turns):
                raise
        return await self._ask(request, images=False)

    async def _ask(self, request: Request, *, images: bool) -> str:
        messages: list[dict[str, Any]] = [{"role": "system", "content": self._prompt}]
        if request.language:
            messages.append({"role": "system", "content": f"The customer's browser is set to {request.language}."})
        messages += [_message(turn, images=images) for turn in request.turns]
        try:
            answer = await self._client.post("/chat/completions", json={"model": self._model, "messages": messages})
        except httpx.HTTPError as error:
            raise DraftFailed(f"model does not answer ({failure_of(error)})") from error
        if not answer.is_success:
            asked_ms = retry_after_ms(answer.headers.get("retry-after"), now=datetime.now(UTC))
            raise model_refused(answer.status_code, asked_ms / 1000 if asked_ms else None)
        return _content(answer)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()


def _message(turn: Turn, *, images: bool) -> dict[str, Any]:
    if not (images and turn.images):
        return {"role": turn.role, "content": turn.text}
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in turn.images]
    return {"role": turn.role, "content": [{"type": "text", "text": turn.text}, *shown]}


def _content(answer: httpx.Response) -> str:
    try:
        document: Any = answer.json()
        content = document["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise DraftFailed("model's answer is not a chat completion") from error
    if not isinstance(content, str) or not content.strip():
        raise DraftFailed("model said nothing")
    return content.strip()


def system_prompt(path: Path | None) -> str:
    """The team's prompt, or the built-in one.

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
