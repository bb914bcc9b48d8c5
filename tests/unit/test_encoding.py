"""Decoding: every stream of a coding gives its data, whatever parts it comes in, and never more than the limit."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.intake.encoding import (
    MOST_MEMBERS,
    STEP_BYTES,
    CorruptBody,
    DecodedTooLarge,
    Decoder,
    UnsupportedEncoding,
    coding_of,
    decoded,
)


def _raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


_CODINGS = {"gzip": ("gzip", gzip.compress), "deflate": ("deflate", zlib.compress), "raw": ("deflate", _raw)}
_DATA = st.binary(max_size=300) | st.integers(0, 3 * STEP_BYTES).map(bytes)


@given(st.sampled_from(list(_CODINGS)), _DATA, st.integers(1, 70_000))
def test_what_was_encoded_is_decoded_whatever_parts_it_comes_in(kind: str, data: bytes, size: int) -> None:
    coding, encode = _CODINGS[kind]
    sent, decoder = encode(data), Decoder(coding, limit=len(data))
    for at in range(0, len(sent), size):
        for _ in decoder.feed(sent[at : at + size]):
            pass
    decoder.close()
    assert bytes(decoder.body) == data


@given(st.sampled_from(list(_CODINGS)), _DATA.filter(bool), st.data())
def test_nothing_beyond_the_limit_is_held(kind: str, data: bytes, draw: st.DataObject) -> None:
    coding, encode = _CODINGS[kind]
    limit = draw.draw(st.integers(0, len(data) - 1))
    decoder = Decoder(coding, limit)
    held = 0
    with contextlib.suppress(DecodedTooLarge):
        for _ in decoder.feed(encode(data)):
            held = len(decoder.body)
        pytest.fail("it is larger than the limit")
    assert held <= limit < len(decoder.body) == limit + 1


@given(st.sampled_from(list(_CODINGS)), _DATA, st.data())
def test_a_stream_that_is_cut_off_is_corrupt(kind: str, data: bytes, draw: st.DataObject) -> None:
    coding, encode = _CODINGS[kind]
    sent = encode(data)
    with pytest.raises(CorruptBody):
        decoded([coding], sent[: draw.draw(st.integers(1, len(sent) - 1))], limit=len(data))


@given(st.sampled_from(["gzip", "deflate"]), st.binary(max_size=200))
def test_arbitrary_bytes_are_decoded_or_refused(coding: str, sent: bytes) -> None:
    with contextlib.suppress(CorruptBody, DecodedTooLarge):
        assert len(decoded([coding], sent, limit=10_000)) <= 10_000


def test_a_gzip_body_has_as_many_members_as_blocked_gzip_needs_and_no_more() -> None:
    empty, blocks = gzip.compress(b""), gzip.compress(b"x") * (MOST_MEMBERS - 1)
    assert decoded(["gzip"], blocks + empty, limit=MOST_MEMBERS) == b"x" * (MOST_MEMBERS - 1)
    with pytest.raises(CorruptBody):
        decoded(["gzip"], blocks + empty * 2, limit=MOST_MEMBERS)


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([], None), ([""], None), (["identity"], None), (["gzip"], "gzip"), (["X-GZIP"], "gzip"),
        (["deflate"], "deflate"), (["identity", "gzip , "], "gzip"),
    ],
)  # fmt: skip
def test_the_coding_is_the_one_that_changes_the_body(values: list[str], coding: str | None) -> None:
    assert coding_of(values) == coding


@pytest.mark.parametrize("values", [["br"], ["gzip", "gzip"], ["gzip, deflate"], ["gzip;q=1"], ["*"], ["none"]])
def test_other_codings_and_several_are_not_supported(values: list[str]) -> None:
    with pytest.raises(UnsupportedEncoding):
        coding_of(values)
