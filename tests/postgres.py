"""A Postgres of the test's own on a TCP port, to be stopped, killed, copied and promoted, and a way to it that fails.

The machine's PostgreSQL where there is one, else that of the wheel.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg.pq import PGconn, Ping

from relay.store.embedded_server import programs as wheel_programs
from tests.servers import PATIENCE_S, Rows, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEBIAN = Path("/usr/lib/postgresql")
_START_S = PATIENCE_S


def programs() -> Path:
    """Where `initdb`, `postgres` and `pg_basebackup` are."""
    installed = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return installed[-1].parent if installed else wheel_programs()


def account() -> tuple[int, int]:
    """Who the server runs as: this user, unless that is root, who may not."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise AssertionError("no account to run PostgreSQL as")


class Server:
    """A server with its data in `folder`, which its account must be able to reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.dsn = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.rows = Rows(self.dsn)
        self._data = folder / f"data-{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> Server:
        """Make its data and start it."""
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
        return self.start()

    def standby(self) -> Server:
        """Another server that follows this one; from now on a commit here waits for it."""
        other = Server(self.folder)
        source = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        self._run("pg_basebackup", "-D", str(other._data), *source, "-R", "-X", "stream", "-c", "fast")
        other.start()
        self.rows("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.rows("SELECT pg_reload_conf()")
        return other

    def start(self, *options: str) -> Server:
        """Start it and wait until it takes connections; `options` are more of its command line's."""
        settings = ["-c", "listen_addresses=127.0.0.1", "-k", str(self.folder), "-p", str(self.port), *options]
        uid, gid = account()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(programs() / "postgres"), "-D", str(self._data), *settings],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                **(_other_user(uid, gid)),
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while PGconn.ping(self.dsn.encode()) != Ping.OK:
            assert self._process.poll() is None, (self.folder / "log").read_text(encoding="utf-8")[-2000:]
            assert time.monotonic() < deadline, "Postgres does not start"
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Stop the server, which ends its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        """`kill -9` the server and each of its processes, as a power failure would."""
        assert self._process is not None
        pid = self._process.pid
        self._process.send_signal(signal.SIGSTOP)  # so that it starts no more
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for child in (*map(int, children), pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [str(programs() / name), *arguments],
            cwd="/", check=True, capture_output=True, stdin=subprocess.DEVNULL, **_other_user(*account()),
        )  # fmt: skip


def _other_user(uid: int, gid: int) -> dict[str, int | list[int]]:
    return {} if uid == os.geteuid() else {"user": uid, "group": gid, "extra_groups": []}


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A directory on a disk of its own that holds so much and no more. Where none can be mounted, skips the test."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "none", str(folder)]
    done = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Proxy:
    """A TCP proxy in front of `port`. Its connections can be cut, or stay open without a byte getting through."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self.port = 0

    @property
    def links(self) -> int:
        """How many connections go through it."""
        return len(self._links)

    async def start(self) -> Proxy:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> int:
        """Reset every connection, as a firewall that forgot them does; new ones pass. Returns how many."""
        links = list(self._links)
        for link in links:
            link.cut()
        return len(links)

    def strand(self) -> int:
        """Leave every connection half-open for ever: nothing passes and no error is sent; new ones pass."""
        links = list(self._links)
        for link in links:
            link.strand()
        return len(links)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link((reader, writer), onward)
        self._links.add(link)
        await link.carry()
        self._links.discard(link)


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    def __init__(self, client: _Stream, server: _Stream) -> None:
        self._writers = [client[1], server[1]]
        self._pumps = [
            asyncio.create_task(self._pump(client[0], server[1])),
            asyncio.create_task(self._pump(server[0], client[1])),
        ]
        self._stranded = False

    async def carry(self) -> None:
        await asyncio.wait(self._pumps)
        if not self._stranded:
            self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def strand(self) -> None:
        self._stranded = True
        for pump in self._pumps:
            pump.cancel()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
