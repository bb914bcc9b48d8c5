"""The READMEs are complete: every key, variable, command and direct dependency; every link leads somewhere."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from console.actions import ACTIONS, PLACES
from console.key_names import shown_key
from relay.cli import cli
from relay.settings import Settings
from tests.servers import ROOT

if TYPE_CHECKING:
    from console.actions import Action

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = (ROOT / "console" / "README.md").read_text(encoding="utf-8")
RELAY = (ROOT / "relay" / "README.md").read_text(encoding="utf-8")
MOST_WORDS = 1800
FOLDERS = ("relay", "relay/deploy", "console", "tests/benchmarks", "tests/faults")


def row(action: Action) -> str:
    """A key's row in README's table."""
    keys = " ".join(f"`{shown_key(key)}`" for key in action.keys)
    if action.where is None:
        where = "everywhere"
    else:
        where = ", ".join(title for place, title in PLACES.items() if place in action.where)
    return f"| {keys} | {action.text} | {where.lower()} |"


ROWS = [row(action) for action in ACTIONS if not action.name.startswith("view(")]


def test_the_table_of_keys_is_the_programs() -> None:
    table = CONSOLE.partition("| key | does | where |\n| --- | --- | --- |\n")[2].partition("\n\n")[0]
    assert table.splitlines() == ROWS


def test_every_variable_is_explained() -> None:
    names = [name.upper() for name in Settings.model_fields]
    pages = README + RELAY
    assert [name for name in names if not re.search(rf"^\|.*`{name}`.*\|.*\|", pages, flags=re.MULTILINE)] == []


def test_every_command_is_named() -> None:
    assert [name for name in cli.list_commands(None) if f"relay {name}" not in README] == []


def test_every_direct_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    table = RELAY.partition("| dependency | why it is there |")[2].partition("\n\n")[0]
    named = re.findall(r"[a-z0-9-]+", "".join(line.split("|")[1] for line in table.splitlines()[2:]))
    direct = {re.match(r"[a-z0-9-]+", want)[0] for want in wanted} - {project["name"]}
    missing = [one for one in sorted(direct) if one not in named]
    assert missing == []


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= MOST_WORDS


def test_every_link_and_picture_is_there() -> None:
    pages = [ROOT / "README.md", ROOT / "relay" / "AGENT.md", *(ROOT / folder / "README.md" for folder in FOLDERS)]
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []
