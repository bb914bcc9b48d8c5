"""What can be read of a message's attachments: images for models that take them, voice messages as text.

An attachment that cannot be read never fails a draft: the prompt names it, and the model sees that it is there.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from relay import http_client
from relay.agent.message import as_text
from relay.agent.prompt import Media
from relay.chatwoot.messages import as_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import FilteringBoundLogger

    from relay.agent.message import Attachment, Message
    from relay.settings import Settings

_MOST = 4
_IMAGE_BYTES = 5_000_000
_AUDIO_BYTES = 25_000_000
_DOWNLOAD_S = 10
_TRANSCRIBE_S = 20
_REDIRECTS = 3
_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_BLOBS = "/rails/active_storage/"


class Unreadable(Exception):
    """An attachment that cannot be read: why."""


class AttachmentReader:
    """Reads attachments that Chatwoot's own host serves, and nothing else, whatever address a message names."""

    def __init__(self, settings: Settings, log: FilteringBoundLogger) -> None:
        self._base = settings.chatwoot_base_url or ""
        self._images = settings.llm_images
        self._transcriber = settings.transcribe_base_url
        self._model = settings.transcribe_model
        key = settings.transcribe_api_key
        self._auth = {} if key is None else {"authorization": f"Bearer {key.get_secret_value()}"}
        self._log = log
        self._client = http_client.client(timeout=_DOWNLOAD_S, max_redirects=_REDIRECTS)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def read(self, messages: Sequence[Message]) -> Media:
        """What the attachments of `messages` hold, of the newest ones first."""
        transcripts: dict[tuple[int, int], str] = {}
        images: dict[tuple[int, int], str] = {}
        for message in sorted(messages, key=lambda one: one.id, reverse=True):
            for place, attachment in enumerate(message.attachments):
                try:
                    if self._images and attachment.kind == "image" and len(images) < _MOST:
                        images[message.id, place] = await self._image(attachment)
                    elif self._transcriber and _needs_transcript(attachment) and len(transcripts) < _MOST:
                        transcripts[message.id, place] = await self._transcript(attachment)
                except (Unreadable, httpx.HTTPError) as error:
                    reason = str(error) if isinstance(error, Unreadable) else type(error).__name__
                    self._log.warning("Attachment not read", message=message.id, kind=attachment.kind, reason=reason)
        return Media(transcripts, images)

    async def _image(self, attachment: Attachment) -> str:
        body, kind = await self._download(attachment, _IMAGE_BYTES)
        if kind not in _IMAGE_TYPES:
            raise Unreadable("no image that models take")
        return f"data:{kind};base64,{base64.b64encode(body).decode()}"

    async def _transcript(self, attachment: Attachment) -> str:
        body, kind = await self._download(attachment, _AUDIO_BYTES)
        name = "voice." + {"audio/mpeg": "mp3", "audio/mp4": "m4a", "audio/wav": "wav"}.get(kind, "ogg")
        answer = await self._client.post(
            f"{self._transcriber}/audio/transcriptions", headers=self._auth, timeout=_TRANSCRIBE_S,
            files={"file": (name, body, kind or "audio/ogg")}, data={"model": self._model},
        )  # fmt: skip
        if not answer.is_success:
            raise Unreadable(f"transcription answered {answer.status_code}")
        try:
            text = as_text(as_dict(answer.json()).get("text")).strip()
        except ValueError:
            text = ""
        if not text:
            raise Unreadable("transcription gave no text")
        return text

    async def _download(self, attachment: Attachment, most: int) -> tuple[bytes, str]:
        body = bytearray()
        url = own_url(attachment.url or "", self._base)
        if url is None:
            raise Unreadable("not on Chatwoot's host" if attachment.url else "no address")
        async with self._client.stream("GET", url, follow_redirects=True) as answer:
            if not answer.is_success:
                raise Unreadable(f"Chatwoot answered {answer.status_code}")
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > most:
                    raise Unreadable(f"larger than {most // 1_000_000} MB")
            return bytes(body), answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def _needs_transcript(attachment: Attachment) -> bool:
    return attachment.kind == "audio" and not attachment.transcript


def own_url(url: str, base: str) -> str | None:
    """Where the agent reads `url`; None for an address on another host than Chatwoot's.

    Chatwoot names its files with its public address (`FRONTEND_URL`), which may not be the one that the agent reaches
    it by: the path of a stored file is asked of `base`.
    """
    try:
        parts, own = urlsplit(url), urlsplit(base)
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"}:
        return None
    if parts.path.startswith(_BLOBS):
        return base + parts.path + (f"?{parts.query}" if parts.query else "")
    return url if (parts.scheme, parts.netloc) == (own.scheme, own.netloc) else None
