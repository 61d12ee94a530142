"""The representation of IDs, names and other values in log records and messages. It never fails."""

from __future__ import annotations

__all__ = ["format_name", "format_value", "printable"]


def printable(text: str) -> str:
    """Return a text with line breaks and other control characters escaped, since these could forge log lines."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def format_value(value: object) -> str:
    """Return the ``repr`` of an ID or another value, for log records and messages."""
    try:
        return printable(repr(value))
    except Exception:
        return f"<{type(value).__name__} whose repr failed>"


def format_name(prefix: str, task_id: object) -> str:
    """Return the name of a task, as in pydis_core: the name of its scheduler and the ID."""
    try:
        return f"{prefix}_{task_id}"
    except Exception:
        return f"{prefix}_<{type(task_id).__name__} whose str failed>"
