"""The log of a scheduler. Errors in logging do not affect tasks."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import final

from .failures import is_fatal
from .texts import format_value, printable

__all__ = ["SCHEDULED_AT", "SchedulerLog"]

SCHEDULED_AT = " It was scheduled at %s."
"""The end of a message about a task if it is known where the task was scheduled."""


@final
class SchedulerLog:
    """Logs what happens to the tasks of a scheduler, as the logger ``anysched.<name>`` would.

    A root scheduler has this logger. The logger of a child exists only if the program has created it, because the
    module `logging` keeps loggers for the lifetime of the process; otherwise its records are handled by the nearest
    logger above it.

    Args:
        scheduler: The name of the scheduler.
        parent: The log of the parent, for a child.

    Attributes:
        is_enabled_for: Returns whether records of a level are logged. It is the logger's own method if
            possible, since each scheduling call calls it.
    """

    __slots__ = ("_depth", "_logger", "_name", "_scheduler", "is_enabled_for")

    def __init__(self, scheduler: str, parent: SchedulerLog | None = None) -> None:
        self._scheduler = scheduler
        self._name = f"anysched.{printable(scheduler)}"
        self._depth: int = 0 if parent is None else parent._depth + 1
        self._logger: logging.Logger = logging.getLogger(self._name) if parent is None else parent._logger
        self.is_enabled_for: Callable[[int], bool] = self._logger.isEnabledFor
        if parent is not None:
            root, name, depth = self._logger, self._name, self._depth  # not `self`, which must not refer to itself
            self.is_enabled_for = lambda level: _nearest(root, name, depth).isEnabledFor(level)

    def log(
        self,
        level: int,
        message: str,
        task_id: Hashable,
        *args: object,
        failure: BaseException | None = None,
        scheduled_at: str | None = None,
    ) -> None:
        """Log a message about a task.

        Args:
            level: The level, one of `logging`'s.
            message: The message, with ``%s`` for each argument and a last one for the ID.
            task_id: The ID. The record has it as the attribute ``task_id``, and the scheduler's name as ``scheduler``.
            args: The other arguments.
            failure: The exception to log with its traceback.
            scheduled_at: Where the task was scheduled, if known.
        """
        args = (*args, format_value(task_id))
        if scheduled_at is not None:
            message += SCHEDULED_AT
            args = (*args, scheduled_at)
        self._emit(level, message, args, failure, {"task_id": task_id})

    def log_failure(self, message: str, subject: object, failure: BaseException) -> None:
        """Log the failure of something other than a task, at ERROR.

        Args:
            message: The message, with ``%s`` for the subject.
            subject: What has failed.
            failure: The exception to log with its traceback.
        """
        self._emit(logging.ERROR, message, (format_value(subject),), failure, {})

    def warn(self, message: str, *args: object) -> None:
        """Log a message about the scheduler, at WARNING."""
        self._emit(logging.WARNING, message, args, None, {})

    def _emit(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        failure: BaseException | None,
        fields: dict[str, object],
    ) -> None:
        try:
            logger = _nearest(self._logger, self._name, self._depth)
            if not logger.isEnabledFor(level):
                return
            path, line, function, _ = logger.findCaller(stacklevel=3)
            exc_info = None if failure is None else (type(failure), failure, failure.__traceback__)
            extra = {"scheduler": self._scheduler, **fields}
            logger.handle(logger.makeRecord(self._name, level, path, line, message, args, exc_info, function, extra))
        except BaseException as error:  # in a handler or filter; it must not end a task or fail a call that took effect
            if is_fatal(error):
                raise
            if logging.raiseExceptions:
                with suppress(Exception):  # standard error may be closed
                    traceback.print_exc()


def _nearest(root: logging.Logger, name: str, depth: int) -> logging.Logger:
    """Return the logger of a name, or the nearest existing one above it, at most ``depth`` levels above."""
    known = root.manager.loggerDict
    for _ in range(depth):
        logger = known.get(name)
        if isinstance(logger, logging.Logger):
            return logger
        name = name.rpartition(".")[0]
    return root
