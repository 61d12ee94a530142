"""Schedule coroutines under IDs, now or in the future, on asyncio and on trio, with one API."""

from ._core.create_task import create_task
from ._core.exceptions import DuplicateTaskError
from ._core.registry import SchedulerState
from ._core.scheduler import ConflictPolicy, Scheduler, SchedulerStatistics
from ._core.task import CurrentRun, ScheduledTask, current_run, current_scheduled_task
from ._core.triggers import MissedPolicy

__all__ = [
    "ConflictPolicy",
    "CurrentRun",
    "DuplicateTaskError",
    "MissedPolicy",
    "ScheduledTask",
    "Scheduler",
    "SchedulerState",
    "SchedulerStatistics",
    "create_task",
    "current_run",
    "current_scheduled_task",
]
