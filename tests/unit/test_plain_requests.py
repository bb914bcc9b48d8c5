"""Requests of the usual form are read as h11 reads them; all others are left to h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.server import plain

USUAL = (
    b"POST /api/webhooks/chatwoot HTTP/1.1\r\nHost: relay.example\r\nContent-Type: application/json\r\n"
    b"X-Chatwoot-Delivery:  0192f0a1 \t\r\nX-Empty:\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}"
)

lines = st.sampled_from([
    b"Host: relay", b"host:relay:8788", b"Host: a\x00b", b"Host : relay", b"Content-Length: 2", b"content-length:2",
    b"Content-Length: 02", b"Content-Length: +2", b"Content-Length: 2, 2", b"Content-Length: -1", b"Content-Length: 3",
    b"Content-Length: 99999999999", b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked",
    b"Expect: 100-continue", b"Upgrade: h2c", b"Connection: close", b"Connection: keep-alive",
    b"Connection: upgrade, keep-alive", b" folded",
    b"X-A: 1", b"X-A: caf\xc3\xa9", b"X-A: \x0bb", b"X-A: a\rb", b"X-A: a\nTransfer-Encoding: chunked", b"no colon",
    b": empty", b"X\x00: 1", b"(x): 1", b"X-A:" + b" " * 50, b"X-A: a b\tc ", b"",
])  # fmt: skip
starts = st.sampled_from([
    b"POST /api/webhooks/chatwoot HTTP/1.1", b"POST / HTTP/1.1", b"POST  / HTTP/1.1", b"POST /a b HTTP/1.1",
    b"POST /%2e HTTP/1.1", b"POST /a?b HTTP/1.1", b"POST http://relay/ HTTP/1.1", b"POST * HTTP/1.1",
    b"POST / HTTP/1.0", b"POST / HTTP/2.0", b"post / HTTP/1.1", b"GET / HTTP/1.1", b"\r\nPOST / HTTP/1.1",
])  # fmt: skip
ends = st.sampled_from([b"\r\n", b"\n", b"\r"])
bodies = st.sampled_from([b"", b"{", b"{}", b"{}POST / HTTP/1.1\r\nHost: relay\r\n\r\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    end = draw(st.just(b"\r\n") | ends)
    fields = draw(st.lists(lines, max_size=6)) + draw(st.sampled_from([[], [b"Host: relay", b"Content-Length: 2"]]))
    return end.join([draw(starts), *draw(st.permutations(fields)), b"", b""]) + draw(bodies)


@given(requests())
@example(USUAL)
def test_what_is_read_is_read_as_h11_reads_it(data: bytes) -> None:
    read = plain.read(data)
    if read is None:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data[: read.end])
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target, request.http_version) == (b"POST", read.path, b"1.1")
    assert list(request.headers) == read.headers
    assert not connection.they_are_waiting_for_100_continue
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert body == data[read.start : read.end]
    assert isinstance(event, h11.EndOfMessage) == (len(data) >= read.end)
    assert connection.their_state in {h11.DONE, h11.SEND_BODY}  # the connection is kept


def test_the_usual_request_is_read() -> None:
    read = plain.read(USUAL)
    assert read is not None
    assert (read.path, USUAL[read.start :], read.end) == (b"/api/webhooks/chatwoot", b"{}", len(USUAL))
    assert read.headers[2:4] == [(b"x-chatwoot-delivery", b"0192f0a1"), (b"x-empty", b"")]
    assert plain.read(USUAL[: USUAL.index(b"{}")]) == read, "its head came first"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"PUT"),
        (b"/chatwoot", b"/chatwoot?a=b"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Host: relay.example\r\n", b""),
        (b"Content-Length: 2", b"Content-Length: 70000"),
        (b"Content-Length: 2", b"Content-Length: 2\r\nContent-Length: 2"),
        (b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        (b"X-Empty:", b"Expect: 100-continue"),
        (b"X-Empty:", b"X-Empty:" + b"a" * 9_000),
        (b"keep-alive", b"close"),
    ],
)
def test_all_others_are_left_to_h11(old: bytes, new: bytes) -> None:
    assert plain.read(USUAL.replace(old, new)) is None
