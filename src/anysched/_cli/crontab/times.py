"""When a line of a crontab is due: at the times of a cron expression, or at the start of the program."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, tzinfo

from anysched.cron import Cron

__all__ = ["REBOOT", "check_expression", "run_times"]

REBOOT = "@reboot"
"""Not a time, but the start of the program."""


def check_expression(expression: str) -> None:
    """Check the expression of a line.

    Args:
        expression: Five fields, or a name such as ``"@hourly"``.

    Raises:
        ValueError: if cronsim does not understand the fields, or if the name is unknown.
    """
    if expression == REBOOT:
        return
    try:
        Cron(expression)
    except ValueError as error:
        raise ValueError(f"{error}, {REBOOT}" if expression.startswith("@") else str(error)) from None


def run_times(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Return an iterator of the due times of a line after a time, none for ``@reboot``.

    Args:
        expression: An expression that has been checked.
        zone: The zone of the line.
        after: An aware time.
    """
    return iter(()) if expression == REBOOT else Cron(expression, zone)(after)
