"""Schedule coroutines under IDs, now or in the future, on asyncio and on trio, with one API."""

from ._core.create_task import create_task
from ._core.exceptions import DuplicateTaskError
from ._core.registry import SchedulerState
from ._core.scheduler import ConflictPolicy, Scheduler, SchedulerStatistics
from ._core.task import CurrentRun, RunningPolicy, ScheduledTask, current_run, current_scheduled_task
from ._core.triggers import MeasuredFrom, MissedPolicy

__all__ = [
    "ConflictPolicy",
    "CurrentRun",
    "DuplicateTaskError",
    "MeasuredFrom",
    "MissedPolicy",
    "RunningPolicy",
    "ScheduledTask",
    "Scheduler",
    "SchedulerState",
    "SchedulerStatistics",
    "create_task",
    "current_run",
    "current_scheduled_task",
]
