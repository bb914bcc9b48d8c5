"""Opens the screens that lie on top of others. Each is loaded when it is first wanted: some load an HTTP client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from console.flows import requests

if TYPE_CHECKING:
    from textual.app import App

    from console.data.context import Context


def open_screen(app: App[Any], context: Context, asked: requests.Open) -> None:
    """Push the screen that is asked for. A diagnosis or an escalation that is in front already stays."""
    match asked:
        case requests.OpenDelivery():
            from console.screens.detail import DetailView  # noqa: PLC0415 - see the module

            app.push_screen(DetailView(context, asked.row_id, asked.neighbours, answers=asked.answers))
        case requests.OpenConversation():
            from console.screens.conversation import ConversationView  # noqa: PLC0415 - see the module

            app.push_screen(ConversationView(context, asked.conversation_id))
        case requests.OpenBreakdown():
            from console.screens.breakdown import BreakdownView  # noqa: PLC0415 - see the module

            app.push_screen(BreakdownView(context))
        case requests.OpenDiagnosis():
            from console.screens.diagnosis import DiagnosisView  # noqa: PLC0415 - see the module

            if not isinstance(app.screen, DiagnosisView):
                app.push_screen(DiagnosisView(context))
        case requests.OpenEscalation():
            from console.screens.escalation import EscalationView  # noqa: PLC0415 - see the module

            if not isinstance(app.screen, EscalationView):
                app.push_screen(EscalationView(context))
        case requests.OpenHelp():
            from console.screens.help import HelpScreen  # noqa: PLC0415 - see the module

            app.push_screen(HelpScreen(asked.place, read_only=context.read_only))
        case requests.OpenEditor():
            from console.screens.editor import EditorScreen  # noqa: PLC0415 - see the module

            app.push_screen(EditorScreen(asked.body, asked.draft), asked.then)
