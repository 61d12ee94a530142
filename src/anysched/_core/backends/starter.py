"""Starting tasks in the dispatcher's task group: which way is taken."""

from __future__ import annotations

from anyio.abc import TaskGroup

from . import Backend, Starter
from .group import GroupStarter

__all__ = ["Starter", "starter_for"]


def starter_for(group: TaskGroup, backend: Backend) -> Starter:
    """Return what starts tasks in a task group, in the quickest way that there is here."""
    if backend.name == "trio":
        from .trio import TrioStarter

        return TrioStarter()
    try:
        from .asyncio import AsyncioStarter

        return AsyncioStarter(group)
    except (ImportError, AttributeError, TypeError):
        return GroupStarter(group)
