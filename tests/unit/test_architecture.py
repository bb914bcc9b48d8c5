"""Where SQL may be written, and that every module says what it is for. `lint-imports` checks who may import whom."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|TRUNCATE|COPY)\s")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for package in ("relay", "console") for path in sorted((ROOT / package).rglob("*.py"))}


def _tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def _sql_in(source: ast.AST) -> list[str]:
    strings = (
        node.value for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [text for text in strings if _STATEMENT.match(text)]


def _may_hold_sql(name: str) -> bool:
    return name.startswith("relay.store")


def test_only_the_store_contains_sql() -> None:
    elsewhere = [name for name in MODULES if not _may_hold_sql(name)]
    assert {name: sql for name in elsewhere if (sql := _sql_in(_tree(name)))} == {}


def test_sql_is_known_when_it_is_seen() -> None:
    assert len(_sql_in(_tree("relay.store.replays"))) > 5
    assert len(_sql_in(ast.parse("a = f'''\\n  SELECT {column} FROM x'''; b = 'Select a row'"))) == 1


def test_every_module_says_first_what_it_is_for() -> None:
    assert [name for name in MODULES if not ast.get_docstring(_tree(name))] == []
