"""Widgets that take data and emit messages. They know no SQL and no other widget."""
