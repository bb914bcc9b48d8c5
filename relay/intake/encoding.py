"""Content codings of a webhook's body (RFC 9110, 8.4.1): gzip, deflate and identity, decoded within a limit.

Knows neither HTTP nor what the body holds.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TAKEN = "gzip, deflate, identity"
"""The codings that are taken, as `Accept-Encoding` lists them."""

STEP_BYTES = 256 * 1024
"""The most that one step of `Decoder.feed` decodes."""

MOST_MEMBERS = 1024
"""The most members of one gzip body. Blocked gzip has one for every 64 KiB; empty ones cost time and nothing else."""

_GZIP = frozenset({"gzip", "x-gzip"})
_GZIP_WINDOW, _ZLIB_WINDOW, _RAW_WINDOW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


class UnsupportedEncoding(ValueError):
    """The body has a coding, or several, that the relay does not decode."""


class CorruptBody(ValueError):
    """The body is not a whole stream of its coding."""


class DecodedTooLarge(ValueError):
    """The decoded body is larger than the limit."""


def coding_of(values: Sequence[str]) -> str | None:
    """The coding that `Content-Encoding` (its values, one for each field line) names: `gzip`, `deflate` or None.

    Raises:
        UnsupportedEncoding: it is another one, or there are several.
    """
    names = [name.strip().lower() for value in values for name in value.split(",")]
    codings = [name for name in names if name not in {"", "identity"}]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _GZIP | {"deflate"}:
        raise UnsupportedEncoding(", ".join(codings))
    return "deflate" if codings[0] == "deflate" else "gzip"


def decoded(values: Sequence[str], body: bytes, limit: int) -> bytes:
    """A whole `body` without the coding that its `Content-Encoding` names.

    Raises:
        UnsupportedEncoding, CorruptBody, DecodedTooLarge: as for `coding_of` and `Decoder`.
    """
    coding = coding_of(values)
    if coding is None:
        return body
    decoder = Decoder(coding, limit)
    for _ in decoder.feed(body):
        pass
    decoder.close()
    return bytes(decoder.body)


class Decoder:
    """Decodes a body part by part. `body` is what has been decoded, never more than `limit` + 1 bytes."""

    def __init__(self, coding: str, limit: int) -> None:
        self.body = bytearray()
        self._limit = limit
        self._is_gzip = coding == "gzip"
        self._stream = zlib.decompressobj(_GZIP_WINDOW if self._is_gzip else _ZLIB_WINDOW)
        self._members = 1
        self._read = bytearray()  # of a deflate stream, as long as it may turn out to have no zlib header
        self._may_be_raw = not self._is_gzip
        self._began = self._has_more = False

    def feed(self, part: bytes) -> Iterator[None]:
        """Decode `part`; yields after every `STEP_BYTES` at most, so that a caller can let others run.

        Raises:
            CorruptBody: it is not a stream of this coding.
            DecodedTooLarge: `body` would be larger than the limit.
        """
        while part or self._has_more:
            if self._stream.eof:
                part = self._next_member(part)
                if not part:
                    return
            part = self._step(part)
            yield

    def close(self) -> None:
        """The body has come to its end.

        Raises:
            CorruptBody: its stream has not.
        """
        if self._began and not self._stream.eof:
            raise CorruptBody

    def _step(self, part: bytes) -> bytes:
        """Decode the beginning of `part`; returns what is left of it."""
        self._began = True
        most = min(STEP_BYTES, self._limit + 1 - len(self.body))
        if self._may_be_raw:
            self._read += part
        try:
            decoded = self._stream.decompress(part, most)
        except zlib.error:
            if not self._may_be_raw:
                raise CorruptBody from None
            # Some senders leave the zlib header out, though RFC 9110 (8.4.1.2) asks for it.
            self._may_be_raw, self._stream = False, zlib.decompressobj(_RAW_WINDOW)
            return bytes(self._read)
        self._may_be_raw = self._may_be_raw and not decoded
        self.body += decoded
        if len(self.body) > self._limit:
            raise DecodedTooLarge
        self._has_more = len(decoded) == most and not self._stream.eof
        return self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail

    def _next_member(self, part: bytes) -> bytes:
        """Begin the gzip member that follows (RFC 1952, 2.2); returns its bytes, none if `part` is only padding."""
        part = part.lstrip(b"\0") if self._is_gzip else part
        if part:
            self._members += 1
            if not self._is_gzip or self._members > MOST_MEMBERS:
                raise CorruptBody
            self._stream = zlib.decompressobj(_GZIP_WINDOW)
        return part
