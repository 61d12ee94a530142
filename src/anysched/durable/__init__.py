"""The durable tier: the methods of `anysched.Scheduler`, with tasks that survive a restart."""

from .errors import StoreError, StoreInUseError, UnknownHandlerError
from .memory import MemoryStore
from .operations import DurableStatistics
from .run import DurableRun, current_run
from .scheduler import DurableScheduler
from .sqlite import SQLiteStore
from .store import Store
from .task import DurableTask
from .values import TaskId

__all__ = [
    "DurableRun",
    "DurableScheduler",
    "DurableStatistics",
    "DurableTask",
    "MemoryStore",
    "SQLiteStore",
    "Store",
    "StoreError",
    "StoreInUseError",
    "TaskId",
    "UnknownHandlerError",
    "current_run",
]
