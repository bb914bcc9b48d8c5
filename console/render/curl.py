"""A curl command that posts a delivery's payload to the agent as the relay would.

It leaves Chatwoot's signature out, as it leaves out everything that must not reach a clipboard: an agent that
verifies signatures refuses the command. A replay is the way to send a delivery with its signature.
"""

from __future__ import annotations

import shlex

from relay.chatwoot.signature import DELIVERY_HEADER

MOST_BYTES = 60_000
"""Terminals cut longer OSC 52 sequences off."""


def curl_command(agent: str, delivery_id: str, body: bytes) -> str:
    """Return a shell command that posts `body` as the relay would. Every part is quoted or escaped.

    The body is in ANSI-C quotes (`$'…'`), so that nothing in it can end the quote or reach the terminal.
    """
    return " ".join(
        [
            "curl", "-X", "POST", shlex.quote(agent),
            "-H", "'Content-Type: application/json'",
            "-H", shlex.quote(f"{DELIVERY_HEADER}: {delivery_id}"),
            "-H", shlex.quote(f"Idempotency-Key: {delivery_id}"),
            "--data-binary", ansi_c_quoted(body),
        ]
    )  # fmt: skip


def ansi_c_quoted(raw: bytes) -> str:
    """Return `raw` in bash's `$'…'` quotes: printable ASCII unchanged, everything else as `\\xNN`."""
    kept = "".join(chr(byte) if 0x20 <= byte < 0x7F and byte not in {0x27, 0x5C} else f"\\x{byte:02x}" for byte in raw)
    return f"$'{kept}'"
