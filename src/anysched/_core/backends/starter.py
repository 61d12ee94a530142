"""Choosing how tasks are started in the dispatcher's task group."""

from __future__ import annotations

from anyio.abc import TaskGroup

from . import Backend, Starter
from .group import GroupStarter

__all__ = ["Starter", "starter_for"]


def starter_for(group: TaskGroup, backend: Backend) -> Starter:
    """Return the fastest starter for a task group that works here."""
    if backend.name == "trio":
        from .trio import TrioStarter

        return TrioStarter()
    try:
        from .asyncio import AsyncioStarter, end_worker_threads_at_exit

        end_worker_threads_at_exit()
        return AsyncioStarter(group)
    except (ImportError, AttributeError, TypeError):
        return GroupStarter()
