"""What each program loads: a command imports what it needs and no more, so that it starts quickly."""

from __future__ import annotations

import subprocess
import sys

SERVING = {"quart", "flask", "hypercorn", "h11", "aiohttp"}
CALLING = {"httpx", "aiohttp", "tenacity"}
SELDOM = {"prometheus_client", "opentelemetry", "dotenv", "pydantic_settings", "openai", "anthropic", "agents"}
STORING = {"psycopg", "psycopg_pool", "sqlite3", "asyncio", "pydantic"}

LOADED_BY = {
    "import relay.cli": SERVING | CALLING | SELDOM | STORING | {"textual", "rich", "email", "importlib.metadata"},
    "import console.cli": SERVING | CALLING | SELDOM | STORING | {"textual", "rich", "email", "importlib.metadata"},
    "import relay.commands.status as s; s.load_settings()": (
        SERVING | CALLING | SELDOM | {"psycopg_pool", "sqlite3", "structlog", "textual", "rich"}
    ),
    "import console.app, console.start.config_file, console.terminal.abilities": (
        SERVING | CALLING | SELDOM | {"psycopg_pool", "sqlite3", "structlog"}
    ),
    "import relay.commands.agent_serve": SELDOM | {"aiohttp", "textual", "sqlite3", "relay.forwarding"},
    "import relay.commands.serve": SELDOM | {"textual"},
}


def test_each_program_loads_what_it_needs_only() -> None:
    found = {}
    for statement, unwanted in LOADED_BY.items():
        program = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        found[statement] = unwanted & set(done.stdout.split())
    assert {statement: names for statement, names in found.items() if names} == {}
