"""`python -m tests.faults`: break everything on purpose, and print as a table what that cost.

Options are pytest's (`-k half_open`), `--faults-rounds 10` is the long form.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest


class Account:
    """Collects what the tests note through the fixture `survived`."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over what a test noted, once it has passed."""
        if report.when == "call" and report.passed:
            self._rows += [dict(value) for name, value in report.user_properties if name == "survived"]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, as Markdown."""
        write = terminalreporter.write_line
        write(
            "\n| fault | webhooks sent | refused | answered, then lost | sent to the agent twice | seconds to recover |"
        )
        write("| --- | ---: | ---: | ---: | ---: | ---: |")
        for row in self._rows:
            write("| {fault} | {sent:,} | {refused} | {lost} | {copies} | {recovery_s:.1f} |".format_map(row))


if __name__ == "__main__":
    folder = str(Path(__file__).parent)
    sys.exit(pytest.main([folder, "-m", "faults", "-n", "0", "-q", *sys.argv[1:]], plugins=[Account()]))
