"""Pastes are told from keys, marked or not, whole or in parts."""

from __future__ import annotations

from console.terminal.pastes import Pasted, Pastes

_PASTE, _END = b"\x1b[200~", b"\x1b[201~"
_TEXT = b"error:503 and more, " * 20


def fed(*parts: bytes, apart_s: float = 0.01, then_s: float = 60.0) -> list[bytes | Pasted]:
    """What comes of `parts`, one after another; keys that follow each other are joined."""
    pastes, found, now = Pastes(), [], 100.0
    for part in parts:
        now += apart_s
        found += pastes.feed(part, now)
    found += pastes.tick(now + then_s)
    joined: list[bytes | Pasted] = []
    for one in found:
        if joined and isinstance(one, bytes) and isinstance(joined[-1], bytes):
            joined[-1] += one
        else:
            joined.append(one)
    return joined


def test_a_marked_paste_is_one_however_it_is_cut() -> None:
    sent = b"j" + _PASTE + b"one\r\ntwo\rq" + _END + b"k\x1b[A"
    wanted = [b"j", Pasted("one\ntwo\nq"), b"k\x1b[A"]
    assert fed(sent) == wanted
    assert [place for place in range(4, len(sent)) if fed(sent[:place], sent[place:]) != wanted] == []


def test_a_paste_whose_end_is_lost_ends_by_itself() -> None:
    assert fed(_PASTE + b"abc", then_s=1) == []
    assert fed(_PASTE + b"abc") == [Pasted("abc")]
    assert fed(_PASTE + b"abc", b"j", apart_s=11, then_s=0) == [Pasted("abc"), b"j"]


def test_a_paste_without_marks_is_a_paste() -> None:
    text = _TEXT.decode()
    assert fed(_TEXT) == [Pasted(text)]
    assert fed(_TEXT, b"the rest") == [Pasted(text + "the rest")]
    assert fed(_TEXT, b"\x1b[A") == [Pasted(text), b"\x1b[A"]
    assert fed(_TEXT, b"j", apart_s=0.2) == [Pasted(text), b"j"]


def test_keys_are_keys() -> None:
    for keys in (
        b"j", b"\x1b", b"\x1b[", b"\x1b[2", b"\x1b[20~", "é".encode(), b"/error:503 since:14:02\r", b"j" * 4_096,
        b"\x1b[B" * 500, b"\x1b[<0;12;5M\x1b[<0;12;5m",
    ):  # fmt: skip
        assert fed(keys) == [keys], keys


def test_no_more_is_kept_than_any_box_takes() -> None:
    (pasted,) = fed(_PASTE, *[b"x" * 4_096] * 1_000, _END)
    assert isinstance(pasted, Pasted)
    assert 1_000_000 < len(pasted.text) < 1_300_000
