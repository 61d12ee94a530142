"""Schedule coroutines under IDs, now or in the future, on asyncio and on trio, with one API."""

from ._create_task import create_task
from ._due_times import Missed
from ._exceptions import DuplicateTaskError
from ._scheduler import OnConflict, Scheduler, SchedulerStatistics
from ._task import ScheduledTask, current_scheduled_task

__all__ = [
    "DuplicateTaskError",
    "Missed",
    "OnConflict",
    "ScheduledTask",
    "Scheduler",
    "SchedulerStatistics",
    "create_task",
    "current_scheduled_task",
]
