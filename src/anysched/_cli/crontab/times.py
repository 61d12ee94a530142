"""When a line of a crontab is due, as `cronsim` says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo

from cronsim import CronSim, CronSimError

__all__ = ["REBOOT", "check_expression", "run_times"]

REBOOT = "@reboot"
"""Not a time, but the start of the program."""

NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def check_expression(expression: str) -> None:
    """Check when a line is due.

    Args:
        expression: Five fields, or a name such as ``"@hourly"``.

    Raises:
        ValueError: if cronsim does not understand the fields, or there is no such name.
    """
    if expression.startswith("@"):
        if expression != REBOOT and expression not in NAMES:
            raise ValueError(f"unknown name {expression}: the names are {', '.join((REBOOT, *NAMES))}")
        return
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError) as error:  # ValueError: a number with thousands of digits
        reason = str(error) if isinstance(error, CronSimError) else "a number is too long"
        raise ValueError(f"{reason[:1].lower()}{reason[1:]} in {expression[:80]!r}") from None


def run_times(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Yield when a line is due; it may be never.

    Args:
        expression: An expression that has been checked.
        zone: The zone whose clocks it means; where they change, it is due when cronsim says.
        after: An aware time. All those yielded are later.
    """
    if expression == REBOOT:
        return
    times = CronSim(NAMES.get(expression, expression), after.astimezone(zone))
    try:
        for time in times:
            # Asked in the second of two equal hours, cronsim begins with the first.
            if time.astimezone(UTC) > after:
                yield time
    except (OverflowError, ValueError):  # the year 10000
        return
