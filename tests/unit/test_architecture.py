"""The arrows between the packages run one way: who may import whom, and where SQL may stand."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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


def chains(names: Iterable[str], forbidden: Callable[[str], bool]) -> list[str]:
    """The imports that lead from one of the modules `names` to a module that is forbidden to them."""
    assert names
    return [chain for name in names for module, chain in reached(name).items() if forbidden(module)]


def test_relay_never_imports_console() -> None:
    demo = ("relay.demo.", "relay.commands.demo")
    names = [name for name in _modules_of("relay") if name != "relay.demo" and not name.startswith(demo)]
    assert chains(names, lambda module: module.split(".")[0] == "console") == []


def test_console_imports_nothing_that_serves_http() -> None:
    assert chains(_modules_of("console"), SERVES.__contains__) == []


def test_the_store_knows_neither_http_nor_those_who_use_it() -> None:
    users = SERVES | {"httpx", "aiohttp", "click", "textual", "relay.replay", "relay.cli"}
    names = [name for name in _modules_of("relay") if name.startswith("relay.store")]
    assert chains(names, users.__contains__) == []


def test_pure_modules_reach_no_database_and_no_server() -> None:
    pure = ["relay.outcome", "relay.signature", "relay.alerts", "relay.filters", "relay.facts", "relay.delivery"]
    impure = SERVES | {"psycopg", "psycopg_pool", "aiohttp", "asyncio"}
    assert chains(pure, impure.__contains__) == []


def _sql_in(source: ast.AST) -> list[str]:
    strings = (
        node.value for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [text for text in strings if _STATEMENT.match(text)]


def _may_hold_sql(name: str) -> bool:
    return name.startswith("relay.store")


def test_sql_stands_only_in_the_store() -> None:
    elsewhere = [name for name in MODULES if not _may_hold_sql(name)]
    assert {name: sql for name in elsewhere if (sql := _sql_in(_tree(name)))} == {}


def test_sql_is_known_when_it_is_seen() -> None:
    assert len(_sql_in(_tree("relay.store.deliveries"))) > 5
    assert len(_sql_in(ast.parse("a = f'''\\n  SELECT {column} FROM x'''; b = 'Select a row'"))) == 1


def test_every_module_says_first_what_it_is_for() -> None:
    assert [name for name in MODULES if not ast.get_docstring(_tree(name))] == []
