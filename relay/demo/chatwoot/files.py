"""The files of attachments: an address on Chatwoot's host that redirects to one that is good for a short time.

Sources: app/models/attachment.rb (`file_url`), ActiveStorage's blobs/redirect and disk controllers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_REDIRECT = "/rails/active_storage/blobs/redirect/"
_DISK = "/rails/active_storage/disk/"


@dataclass(slots=True)
class Files:
    """Stored files by name: bytes and content type. `asked` are the names that were read."""

    stored: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def attach(self, base: str, kind: str, name: str, body: bytes, content_type: str) -> dict[str, Any]:
        """Store a file; returns the attachment that links to it, of a Chatwoot whose public address is `base`."""
        self.stored[name] = (body, content_type)
        return {
            "id": len(self.stored),
            "file_type": kind,
            "data_url": f"{base}{_REDIRECT}{name}",
            "thumb_url": "",
            "file_size": len(body),
        }

    def add_routes(self, app: web.Application) -> None:
        """Serve the files."""
        app.router.add_get(f"{_REDIRECT}{{name}}", self._redirect)
        app.router.add_get(f"{_DISK}{{name}}", self._file)

    async def _redirect(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(f"{request.url.origin()}{_DISK}{request.match_info['name']}")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.stored:
            raise web.HTTPNotFound
        self.asked.append(name)
        body, content_type = self.stored[name]
        return web.Response(body=body, content_type=content_type)
