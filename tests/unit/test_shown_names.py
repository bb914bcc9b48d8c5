"""Names from outside, as a column of the console shows them."""

from __future__ import annotations

from console.data.context import operator_of
from console.render.formatting import cut, signed_name
from relay.settings import Settings
from relay.text import is_safe


def test_a_long_name_is_cut_to_its_column() -> None:
    assert signed_name("Maximilian Mustermann", "postgres", limit=14) == "Maximilian Mu… (login: postgres)"
    assert cut("short", 14) == "short"
    assert len(cut("\u202e" * 50, 14)) == 14


def test_an_operators_name_is_safe_to_show_and_to_store() -> None:
    for name in ("\x1b]0;x\x07", "J\udcf6rg", "x" * 5_000, "[/b]"):
        settings = Settings(console_operator=name)
        assert is_safe(operator_of(settings)), ascii(name)
        assert len(operator_of(settings)) <= 40
        settings.operator.encode()
