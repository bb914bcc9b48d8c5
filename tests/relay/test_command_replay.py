"""`relay replay` as an operator runs it: what it sends, what it asks first, what it says, and its exit status."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import pty
import signal
import subprocess
import sys
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import pytest

from relay.replay.requests import DEFAULT
from tests.servers import PATIENCE_S, ROOT, Behaviour, until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import CommandLine
    from tests.servers import AgentStandIn, Rows, RunningRelay


@pytest.fixture
def plant(rows: Rows) -> Plant:
    return Plant(rows)


@pytest.fixture
def letters(plant: Plant) -> list[str]:
    """Three dead letters: one of conversation 77 that was rate limited, two that got 503."""
    plant.delivery("dead", delivery_id="first", conversation_id="77", final_status="429", last_error="rate limiting")
    plant.delivery("dead", delivery_id="second", conversation_id="78")
    plant.delivery("dead", delivery_id="third", conversation_id="79")
    return ["first", "second", "third"]


def dead(rows: Rows) -> list[str]:
    found: list[str] = rows("SELECT delivery_id FROM relay.deliveries WHERE state = 'dead' ORDER BY id")
    return found


def sent(agent: AgentStandIn) -> list[str]:
    return sorted(seen.delivery_id for seen in agent.seen)


def plans(rows: Rows) -> list[int]:
    found: list[int] = rows("SELECT id FROM relay.replay_plans")
    return found


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it


class Terminal:
    """`relay replay ARGUMENTS` on a terminal of its own."""

    def __init__(self, command: CommandLine, *arguments: str) -> None:
        self._screen, their_end = pty.openpty()
        os.set_blocking(self._screen, False)
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay", "replay", *arguments],
            cwd=command.folder, env=os.environ | command.env | {"TERM": "xterm"},
            stdin=their_end, stdout=their_end, stderr=their_end, start_new_session=True, preexec_fn=_heed_ctrl_c,  # noqa: PLW1509
        )  # fmt: skip
        os.close(their_end)

    def read(self) -> str:
        """Everything shown so far."""
        try:
            while chunk := os.read(self._screen, 65536):
                self.shown += chunk.decode()
        except OSError:  # nothing more now, or the program has ended
            pass
        return self.shown

    async def shows(self, text: str) -> None:
        """Wait until `text` is on the screen."""
        await until(lambda: text in self.read(), what=f"{text!r} is shown")

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._screen, text.encode() + b"\n")

    async def leaves(self) -> int:
        """Its exit status, once it has ended."""
        await until(lambda: (self.read(), self.process.poll() is not None)[1], what="the command has ended")
        self.read()
        assert self.process.returncode is not None
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._screen)


@pytest.fixture
def terminal(relay_command: CommandLine) -> Iterator[Callable[..., Terminal]]:
    """Starts `relay replay` on terminals."""
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(relay_command, *arguments))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


async def test_without_a_filter_every_dead_letter_is_sent(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, letters: list[str]
) -> None:
    ended = await relay_command.run("replay", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert sent(agent) == letters
    assert ended.stdout.splitlines()[1:] == ["Replay 1 done: 3 delivered, 0 dead again of 3"]


async def test_only_what_the_filter_matches_is_sent(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, rows: Rows, letters: list[str]
) -> None:
    ended = await relay_command.run("replay", "--yes", "--filter", "status:503 !conv:79")
    assert ended.returncode == 0, ended.stderr
    assert sent(agent) == ["second"]
    assert dead(rows) == ["first", "third"]
    assert rows("SELECT filter FROM relay.replay_plans") == ["status:503 !conv:79"]


async def test_only_what_is_named_is_sent_and_each_once(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, letters: list[str]
) -> None:
    ended = await relay_command.run("replay", "--yes", "third", "first", "third")
    assert ended.returncode == 0, ended.stderr
    assert sent(agent) == ["first", "third"]


async def test_one_that_is_dead_again_is_a_failure(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, letters: list[str]
) -> None:
    agent.behave(Behaviour(status=422, times=1))
    ended = await relay_command.run("replay", "--yes", "--canary", "0")
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[1:] == ["Replay 1 done: 2 delivered, 1 dead again of 3"]


async def test_a_plan_that_stops_is_a_failure_and_says_why(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, letters: list[str]
) -> None:
    agent.behave(Behaviour(status=422))
    ended = await relay_command.run("replay", "--yes", "--canary", "1")
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[1:] == [
        "Replay 1 stopped (the canary failed): 0 delivered, 1 dead again, 2 not sent of 3"
    ]
    assert len(agent.seen) == 1


async def test_the_options_are_the_plans_rules(
    relay: RunningRelay, relay_command: CommandLine, rows: Rows, letters: list[str]
) -> None:
    given = ("--rate", "30", "--canary", "2", "--stop-after", "4", "--reason", "agent is back")
    assert (await relay_command.run("replay", "--yes", *given, LOGNAME="maria")).returncode == 0
    assert rows("SELECT rate, canary, stop_after, reason, requested_by FROM relay.replay_plans") == [
        (30, 2, 4, "agent is back", "maria")
    ]


async def test_the_defaults_are_those_of_the_console(
    relay: RunningRelay, relay_command: CommandLine, rows: Rows, letters: list[str]
) -> None:
    assert (await relay_command.run("replay", "--yes")).returncode == 0
    assert rows("SELECT rate, canary, stop_after FROM relay.replay_plans") == [astuple(DEFAULT)]


async def test_the_operator_is_the_one_that_the_console_names(
    relay: RunningRelay, relay_command: CommandLine, rows: Rows, letters: list[str]
) -> None:
    given = {"LOGNAME": "root", "CONSOLE_OPERATOR": "maria"}
    assert (await relay_command.run("replay", "--yes", **given)).returncode == 0
    assert rows("SELECT requested_by FROM relay.replay_plans") == ["maria"]


async def test_a_rate_of_0_is_no_limit(
    relay: RunningRelay, relay_command: CommandLine, rows: Rows, letters: list[str]
) -> None:
    assert (await relay_command.run("replay", "--yes", "--rate", "0")).returncode == 0
    assert rows("SELECT rate FROM relay.replay_plans") == [None]


async def test_three_failures_in_a_row_stop_a_plan_by_default(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, plant: Plant
) -> None:
    for _ in range(5):
        plant.delivery("dead")
    agent.behave(Behaviour(status=422))
    ended = await relay_command.run("replay", "--yes", "--canary", "0", "--json")
    assert ended.returncode == 1
    document = json.loads(ended.stdout)
    assert (document["dead"], document["left"], document["stopped_why"]) == (3, 2, "3 failures in a row")


async def test_json_is_one_document_and_nothing_else(
    relay: RunningRelay, relay_command: CommandLine, letters: list[str]
) -> None:
    ended = await relay_command.run("replay", "--yes", "--json")
    assert ended.returncode == 0
    assert ended.stderr == ""
    document = json.loads(ended.stdout)
    assert document.pop("database")["demo"] is False
    assert document == {
        "plan": 1, "state": "done", "total": 3, "delivered": 3, "dead": 0, "skipped": 0, "left": 0,
        "stopped_why": None, "not_sent": [],
    }  # fmt: skip


async def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, rows: Rows, letters: list[str]
) -> None:
    ended = await relay_command.run("replay", "--dry-run", "--filter", "status:503", "--rate", "5")
    assert ended.returncode == 0
    assert "2 dead letters" in ended.stdout
    assert f"{agent.url}/webhooks/chatwoot" in ended.stdout
    assert "up to 5/s" in ended.stdout
    assert "second" in ended.stdout
    assert "third" in ended.stdout
    assert "first  " not in ended.stdout
    assert ended.stdout.endswith("Dry run: nothing was sent.\n")
    assert plans(rows) == []
    assert dead(rows) == letters


async def test_a_dry_run_needs_no_relay(relay_command: CommandLine, rows: Rows, letters: list[str]) -> None:
    ended = await relay_command.run("replay", "--dry-run", "--json")
    assert ended.returncode == 0
    document = json.loads(ended.stdout)
    assert document.pop("database")["name"].endswith("@localhost (DATABASE_URL)")
    assert document == {
        "dry_run": True, "total": 3, "agent_endpoint": None, "deliveries": letters, "not_sent": [],
    }  # fmt: skip
    assert plans(rows) == []


async def test_nothing_to_send_is_no_failure(relay: RunningRelay, relay_command: CommandLine) -> None:
    ended = await relay_command.run("replay", "--yes")
    assert (ended.returncode, ended.stdout.splitlines()[1:]) == (0, ["There are no dead letters."])


async def test_without_a_relay_it_says_so_and_queues_nothing(
    relay_command: CommandLine, rows: Rows, letters: list[str]
) -> None:
    ended = await relay_command.run("replay", "--yes")
    assert ended.returncode == 1
    assert ended.stderr.startswith("relay: No relay is running")
    assert "relay serve" in ended.stderr
    assert plans(rows) == []


async def test_without_a_terminal_it_sends_nothing_unasked(
    relay: RunningRelay, relay_command: CommandLine, rows: Rows, letters: list[str]
) -> None:
    ended = await relay_command.run("replay")
    assert ended.returncode == 2
    assert "--yes" in ended.stderr
    assert plans(rows) == []


async def test_named_ones_that_are_not_dead_are_listed_apart(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, plant: Plant
) -> None:
    plant.delivery("delivered", delivery_id="done")
    plant.delivery("discarded", delivery_id="dropped")
    plant.delivery("dead", delivery_id="open")
    delivered = await relay_command.run("replay", "--yes", "done")
    assert (delivered.returncode, delivered.stderr) == (0, "done: delivered, not sent\n")
    ended = await relay_command.run("replay", "--yes", "--json", "done", "dropped", "open")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["not_sent"] == [
        {"delivery_id": "done", "state": "delivered"}, {"delivery_id": "dropped", "state": "discarded"},
    ]  # fmt: skip
    assert sent(agent) == ["open"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["first", "no-such-id"], "no-such-id: no delivery has this id. Nothing was sent."),
        (["--filter", "colour:red"], "colour: is not a key; known are error:"),
        (["--filter", 'error:"open'], "a quote is left open"),
        (["--filter", "age:soon"], "age:soon: say age:<1h"),
        (["first", "--filter", "status:503"], "Give delivery ids or --filter, not both."),
        (["--rate", "-1"], "'--rate'"),
        (["--rate", "nan"], "'--rate'"),
        (["--canary", "-1"], "'--canary'"),
        (["--stop-after", "99999999999"], "'--stop-after'"),
        ([b"\xff"], "holds bytes that are not text"),
        (["--everything"], "No such option"),
    ],
)
def test_wrong_use_is_said_and_nothing_is_queued(
    relay_command: CommandLine, rows: Rows, letters: list[str], arguments: list[Any], said: str
) -> None:
    ended = relay_command("replay", "--yes", *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert plans(rows) == []


async def test_on_a_terminal_it_shows_what_it_would_send_and_asks(
    relay: RunningRelay, terminal: Callable[..., Terminal], agent: AgentStandIn, letters: list[str]
) -> None:
    screen = terminal()
    await screen.shows("Send? [y/N]")
    assert f"3 dead letters → {agent.url}/webhooks/chatwoot" in screen.shown
    assert "first  message_created  conv 77  429  rate limiting" in screen.shown
    assert not agent.seen
    screen.type("y")
    assert await screen.leaves() == 0
    assert "Replay 1 done: 3 delivered, 0 dead again of 3" in screen.shown
    assert sent(agent) == letters


@pytest.mark.parametrize("answer", ["n", ""])
async def test_an_answer_other_than_yes_sends_nothing(
    relay: RunningRelay, terminal: Callable[..., Terminal], rows: Rows, letters: list[str], answer: str
) -> None:
    screen = terminal()
    await screen.shows("Send? [y/N]")
    screen.type(answer)
    assert await screen.leaves() == 130
    assert plans(rows) == []


@pytest.mark.parametrize(("answer", "status", "left"), [("51", 0, 0), ("y", 130, 51)])
async def test_many_are_sent_only_once_the_count_is_typed(
    relay: RunningRelay,
    terminal: Callable[..., Terminal],
    rows: Rows,
    plant: Plant,
    answer: str,
    status: int,
    left: int,
) -> None:
    for _ in range(51):
        plant.delivery("dead")
    screen = terminal()
    await screen.shows("Type 51 to send them")
    screen.type(answer)
    assert await screen.leaves() == status
    assert len(dead(rows)) == left


async def test_ctrl_c_stops_what_was_not_sent_yet(
    relay: RunningRelay, terminal: Callable[..., Terminal], rows: Rows, letters: list[str]
) -> None:
    screen = terminal("--yes", "--rate", "0.1")
    await until(lambda: len(dead(rows)) == 2)
    os.kill(screen.process.pid, signal.SIGINT)
    assert await screen.leaves() == 1
    stopped = f"stopped (stopped by {getpass.getuser()} (login: postgres))"
    assert f"{stopped}: 1 delivered, 0 dead again, 2 not sent of 3" in screen.shown
    assert len(dead(rows)) == 2


async def test_what_text_of_a_customer_asks_of_a_terminal_is_not_done(
    relay: RunningRelay, relay_command: CommandLine, plant: Plant
) -> None:
    plant.delivery("dead", delivery_id="odd\x1b[2Jid", event="\x1b]0;title\x07event", last_error="e\x1b[31m")
    ended = await relay_command.run("replay", "--dry-run")
    assert "\x1b" not in ended.stdout


async def test_it_says_when_no_relay_is_left_to_continue(
    relay: RunningRelay, relay_command: CommandLine, rows: Rows, letters: list[str]
) -> None:
    command = asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", "replay", "--yes", "--rate", "0.2",
        env=os.environ | relay_command.env, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    process = await command
    assert process.stderr is not None
    try:
        await until(lambda: len(dead(rows)) == 2)
        await relay.stop()
        said = await asyncio.wait_for(process.stderr.readline(), PATIENCE_S)
        assert said.decode() == "No relay is running any more; replay 1 continues when one starts\n"
        assert process.returncode is None
    finally:
        process.kill()
        await process.communicate()
