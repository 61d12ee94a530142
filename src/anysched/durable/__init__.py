"""The durable tier: the methods of `anysched.Scheduler`, with tasks that survive a restart."""

from .errors import OwnershipLostError, StoreError, StoreInUseError, UncertainCommitError, UnknownHandlerError
from .memory import MemoryStore
from .operations import DurableStatistics
from .run import DurableRun, current_run
from .scheduler import DurableScheduler
from .shared import SharedStore
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
    "OwnershipLostError",
    "SQLiteStore",
    "SharedStore",
    "Store",
    "StoreError",
    "StoreInUseError",
    "TaskId",
    "UncertainCommitError",
    "UnknownHandlerError",
    "current_run",
]
