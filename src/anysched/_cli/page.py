"""The page that shows a schedule in the browser while it runs: ``--web``."""

from __future__ import annotations

from typing import TypeAlias

from anyio.abc import TaskGroup

from anysched import Scheduler

from .reports.events import Report

__all__ = ["Address", "CommandFailedError", "start_page"]

Address: TypeAlias = tuple[str, int]


class CommandFailedError(Exception):
    """Raised in the task of a command that has failed, so that the page shows a failure. It is not logged."""


async def start_page(task_group: TaskGroup, scheduler: Scheduler, address: Address | None, report: Report) -> bool:
    """Serve the page of a scheduler in a task group.

    Args:
        task_group: The task group.
        scheduler: The scheduler.
        address: The host and the port; `None` for no page.
        report: Where to report the address of the page, or why there is none.

    Returns:
        Whether that was possible, or no page was requested.
    """
    if address is None:
        return True
    from anysched.web import dashboard, serve

    try:
        url: str = await task_group.start(serve, dashboard(scheduler), *address)
    except OSError as error:
        report.error(f"cannot serve the page on {address[0]}:{address[1]}: {error.strerror or error}")
        return False
    report.note(f"the page is {url}")
    return True
