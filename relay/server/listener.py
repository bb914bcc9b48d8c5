"""Sockets, the event loop and signals of a server process. Knows neither the relay nor the agent."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from relay.errors import ConfigurationError
from relay.settings import split_bind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

_BIND_PATIENCE_S = 3
ACCEPT_QUEUE = 2048
"""So many connections may wait to be accepted."""


def listen(bind: str, workers: int = 1, *, variable: str = "RELAY_BIND") -> list[socket.socket]:
    """A listening socket for each worker, all on `bind` (host:port); port 0 is any free one. `variable` set it.

    It listens at once: a second start on the address finds it taken, and what connects waits for the worker.

    Raises:
        ConfigurationError: the address cannot be bound, or another process is bound to it.
    """
    host, port = split_bind(bind)
    deadline = time.monotonic() + _BIND_PATIENCE_S
    while True:
        try:
            with _one_start_at_a_time(host, port):
                _bind(host, port, shared=False).close()  # fails if another process listens there, even shared
                first = _bind(host, port, shared=True)
                port = first.getsockname()[1]
                bound = [first, *(_bind(host, port, shared=True) for _ in range(workers - 1))]
                for sock in bound:
                    sock.listen(ACCEPT_QUEUE)
                return bound
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{variable}={bind}: cannot listen there ({error.strerror or error}); is another one running?"
                ) from error
            time.sleep(0.1)


@contextlib.contextmanager
def _one_start_at_a_time(host: str, port: int) -> Iterator[None]:
    """Let no other process check whether the address is free between this one's check and its `listen`.

    The lock is an abstract socket of Linux, which exists in the network namespace of the address.

    Raises:
        OSError: another process starts on the address.
    """
    if port == 0 or sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        lock.bind(f"\0hotdash-relay start on {host}:{port}")
        yield


def _bind(host: str, port: int, *, shared: bool) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def bound_url(bound: socket.socket) -> str:
    """`http://127.0.0.1:8788`, of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def raise_file_limit() -> int:
    """Allow as many open files as the system lets this process have, and return that limit.

    Every delivery may need two sockets.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop where it is installed, else on asyncio's own loop."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        import uvloop  # noqa: PLC0415 - not on every platform

        factory = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def stop_signals() -> list[signal.Signals]:
    """The signals that drain and stop a server. SIGHUP is none where it was ignored at the start (`nohup`)."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hangs_up else [])]


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM, SIGINT or SIGHUP sets."""
    stop = asyncio.Event()
    for number in stop_signals():
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
