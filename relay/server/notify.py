"""Notifies the service manager (systemd) of how far this process is: the `sd_notify` protocol.

Does nothing where `NOTIFY_SOCKET` is not set, which is everywhere but under `Type=notify`. See sd_notify(3).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

READY = "READY=1"
"""The service takes requests."""

STOPPING = "STOPPING=1"
"""The service has begun to end."""


def notify(*states: str) -> None:
    """Send assignments such as `READY`. A service manager that does not listen is not waited for."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1)
        sender.connect("\0" + address[1:] if address[0] == "@" else address)
        sender.send("\n".join(states).encode())
