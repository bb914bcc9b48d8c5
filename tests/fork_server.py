"""Runs the programs' commands without starting an interpreter for each: one process imports them and forks.

A command is a process of its own all the same: arguments, environment, directory, standard streams and exit status
are its own. Only the interpreter's start and the imports are shared, which cost ten times the work of most commands.
What the interpreter reads before its first line (`PYTHON…`, locale, `LD_…`) does not change; see `needs_interpreter`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ROOT = Path(__file__).parents[1]
_READ_AT_THE_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_")
_SIZE_BYTES = 4


def needs_interpreter(names: Iterable[str]) -> bool:
    """Whether a variable of these names has an effect only on an interpreter that starts with it."""
    return any(name.startswith(_READ_AT_THE_START) for name in names)


class ForkServer:
    """The process that forks. It starts with the first command and ends with `close`. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self,
        program: str,
        arguments: Iterable[str | bytes],
        *,
        folder: Path,
        env: Mapping[str, str],
        stdin: str,
        timeout_s: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m program arguments` to its end, as `subprocess.run` with captured text does.

        Raises:
            subprocess.TimeoutExpired: the command did not end within `timeout_s`, and was killed.
        """
        argv = [program, *map(os.fsdecode, arguments)]
        with contextlib.ExitStack() as files:
            given, out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            given.write(stdin.encode())
            given.seek(0)
            request = {"argv": argv, "folder": str(folder), "env": dict(env)}
            reports = files.enter_context(self._fork(request, [given.fileno(), out.fileno(), err.fileno()]))
            status = self._status(reports, argv, timeout_s)
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode().replace("\r\n", "\n"))
        return subprocess.CompletedProcess(argv, status, *said)

    def close(self) -> None:
        """End it."""
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait()

    def _fork(self, request: dict[str, Any], streams: list[int]) -> socket.socket:
        """Have a command begun. Returns the socket that gets its process id and later its exit status."""
        ours, theirs = socket.socketpair()
        body = json.dumps(request).encode()
        with theirs, self._lock:
            if self._socket is None:
                self._socket = self._start()
            socket.send_fds(self._socket, [len(body).to_bytes(_SIZE_BYTES)], [*streams, theirs.fileno()])
            self._socket.sendall(body)
        return ours

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=_ROOT, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        return ours

    @staticmethod
    def _status(reports: socket.socket, argv: list[str], timeout_s: float) -> int:
        deadline, lines = time.monotonic() + timeout_s, b""
        while lines.count(b"\n") < 2:
            reports.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                received = reports.recv(64)
            except TimeoutError:
                if lines:
                    os.kill(int(lines.split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired(argv, timeout_s) from None
            assert received, "the fork server ended"
            lines += received
        return int(lines.split()[1])


def _import_programs() -> None:
    import relay  # noqa: PLC0415 - only the server process needs it

    for module in pkgutil.walk_packages(relay.__path__, "relay."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("console.cli")
    gc.collect()
    gc.freeze()


def _requests(requests: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request and its descriptors; None once the client has gone."""
    size, descriptors, _, _ = socket.recv_fds(requests, _SIZE_BYTES, 4)
    if not size:
        return None
    body, wanted = b"", int.from_bytes(size)
    while len(body) < wanted:
        body += requests.recv(wanted - len(body))
    return json.loads(body), descriptors


def _serve(requests: socket.socket) -> str | None:
    """Fork for each request. Returns the program to run in a child; None in the server, once its client has gone."""
    reports: dict[int, int] = {}

    def ended(*_: object) -> None:
        for pid in list(reports):
            if (found := os.waitpid(pid, os.WNOHANG))[0]:
                report = reports.pop(pid)
                os.write(report, f"{os.waitstatus_to_exitcode(found[1])}\n".encode())
                os.close(report)

    signal.signal(signal.SIGCHLD, ended)
    while (asked := _requests(requests)) is not None:
        request, (*streams, report) = asked
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            requests.close()
            for other in (*reports.values(), report):
                os.close(other)
            return _become(request, streams)
        reports[pid] = report
        os.write(report, f"{pid}\n".encode())
        for stream in streams:
            os.close(stream)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    return None


def _become(request: dict[str, Any], streams: list[int]) -> str:
    """Give this process the request's surroundings; the name of its program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    program: str
    program, *arguments = request["argv"]
    sys.argv = [program, *arguments]
    return program


if __name__ == "__main__":
    _import_programs()
    _name = _serve(socket.socket(fileno=int(sys.argv[1])))
    if _name is not None:
        runpy.run_module(_name, run_name="__main__", alter_sys=True)
