"""The actions that every screen has and that need nothing of the screen itself: they ask the app or begin a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.flows import requests
from console.flows.hold import ask_hold_or_release

if TYPE_CHECKING:
    from console.flows.host import Host


class CommonActions:
    """Mixed into `View`, which is a `Host`."""

    def action_pause_display(self: Host) -> None:
        """Pause the display, or resume it."""
        self.request(requests.PauseDisplay())

    def action_refresh_now(self: Host) -> None:
        """Refresh, slow readings included."""
        self.request(requests.ReadNow(afresh=True))

    def action_next_theme(self: Host) -> None:
        """Switch the theme."""
        self.request(requests.NextTheme())

    def action_check_health(self: Host) -> None:
        """Run the runbook's health check and show its lines."""
        self.request(requests.RunHealthCheck())

    def action_diagnose(self: Host) -> None:
        """Open the diagnosis."""
        self.request(requests.OpenDiagnosis())

    def action_escalate(self: Host) -> None:
        """Open the escalation."""
        self.request(requests.OpenEscalation())

    def action_hold(self: Host) -> None:
        """Hold forwarding, or release it."""
        ask_hold_or_release(self)

    def action_test_webhook(self: Host) -> None:
        """Choose an event and post it as a test webhook."""
        from console.flows.test_webhook import ask_test_webhook  # noqa: PLC0415 - loads an HTTP client when first wanted

        ask_test_webhook(self)
