"""The arrows between the packages run one way: who may import whom, and where SQL may stand."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SERVES = {
    "quart", "hypercorn", "relay.service", "relay.serve", "relay.runtime", "relay.pipeline", "relay.forward",
}  # fmt: skip
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|TRUNCATE|COPY)\s")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for package in ("relay", "console") for path in sorted((ROOT / package).rglob("*.py"))}


def _modules_of(package: str) -> list[str]:
    return [name for name in MODULES if name.split(".")[0] == package]


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all below it, without what only a type checker sees."""
    yield node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        yield from _statements(child)


@cache
def imports(name: str) -> frozenset[str]:
    """The modules that a module imports when it runs, wherever in it they are imported."""
    found: set[str] = set()
    for node in _statements(_tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{name} has a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def reached(name: str) -> dict[str, str]:
    """Everything that importing `name` may load, each with the chain of imports that leads there."""
    chains, waiting = {name: name}, [name]
    while waiting:
        importer = waiting.pop()
        for imported in imports(importer):
            top = imported if imported in MODULES else imported.split(".")[0]
            if top not in chains:
                chains[top] = f"{chains[importer]} → {top}"
                if top in MODULES:
                    waiting.append(top)
    return chains


def test_the_walk_sees_what_is_imported() -> None:
    assert {"quart", "relay.pipeline", "relay.forward"} <= reached("relay.serve").keys()
    assert reached("relay.serve")["quart"] == "relay.serve → relay.service → quart"
    assert "relay.store.deliveries" in reached("relay.pipeline")
    assert len(_modules_of("relay")) > 30
    assert len(_modules_of("console")) > 10


@pytest.mark.parametrize("name", _modules_of("relay"))
def test_relay_never_imports_console(name: str) -> None:
    if name == "relay.demo" or name.startswith(("relay.demo.", "relay.commands.demo")):
        return
    assert [chain for module, chain in reached(name).items() if module.split(".")[0] == "console"] == []


@pytest.mark.parametrize("name", _modules_of("console"))
def test_console_imports_nothing_that_serves_http(name: str) -> None:
    assert [chain for module, chain in reached(name).items() if module in SERVES] == []


@pytest.mark.parametrize("name", [name for name in _modules_of("relay") if name.startswith("relay.store")])
def test_the_store_knows_neither_http_nor_those_who_use_it(name: str) -> None:
    users = SERVES | {"httpx", "aiohttp", "click", "textual", "relay.replay", "relay.cli"}
    assert [chain for module, chain in reached(name).items() if module in users] == []


@pytest.mark.parametrize(
    "name", ["relay.outcome", "relay.signature", "relay.alerts", "relay.filters", "relay.facts", "relay.delivery"]
)
def test_pure_modules_reach_no_database_and_no_server(name: str) -> None:
    impure = SERVES | {"psycopg", "psycopg_pool", "aiohttp", "asyncio"}
    assert [chain for module, chain in reached(name).items() if module in impure] == []


def _sql_in(source: ast.AST) -> list[str]:
    strings = (
        node.value for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [text for text in strings if _STATEMENT.match(text)]


def _may_hold_sql(name: str) -> bool:
    return name.startswith("relay.store")


@pytest.mark.parametrize("name", [name for name in MODULES if not _may_hold_sql(name)])
def test_sql_stands_only_in_the_store(name: str) -> None:
    assert _sql_in(_tree(name)) == []


def test_sql_is_known_when_it_is_seen() -> None:
    assert len(_sql_in(_tree("relay.store.deliveries"))) > 5
    assert len(_sql_in(ast.parse("a = f'''\\n  SELECT {column} FROM x'''; b = 'Select a row'"))) == 1


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_first_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(_tree(name)), f"{name} has no docstring"
