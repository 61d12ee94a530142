"""`create_task`: starts a task with the event loop's own function and logs its exception."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint

from anysched._lazy import LazyModule

from .backends.current import current_backend, is_debugging
from .coroutines import LazyCoroutine, check_target, close_unstarted, is_coroutine
from .debug import call_site
from .failures import is_fatal, split_failure
from .logs import SCHEDULED_AT
from .texts import format_value, printable

if TYPE_CHECKING:
    import asyncio
else:
    asyncio = LazyModule("asyncio")

__all__ = ["create_task"]

T = TypeVar("T")

_log = logging.getLogger("anysched")

# An event loop keeps only weak references to its tasks.
_background: set[asyncio.Task[Any]] = set()


@overload
def create_task(
    coro: Coroutine[Any, Any, T],
    *,
    suppressed_exceptions: tuple[type[BaseException], ...] = (),
    event_loop: asyncio.AbstractEventLoop | None = None,
    task_group: None = None,
    **kwargs: Any,
) -> asyncio.Task[T]: ...


@overload
def create_task(
    coro: Coroutine[Any, Any, T],
    *,
    suppressed_exceptions: tuple[type[BaseException], ...] = (),
    event_loop: None = None,
    task_group: TaskGroup,
    **kwargs: Any,
) -> anyio.TaskHandle[T]: ...


def create_task(
    coro: Coroutine[Any, Any, T],
    *,
    suppressed_exceptions: tuple[type[BaseException], ...] = (),
    event_loop: asyncio.AbstractEventLoop | None = None,
    task_group: TaskGroup | None = None,
    **kwargs: Any,
) -> asyncio.Task[T] | anyio.TaskHandle[T]:
    """Start a task, and log its exception if it fails.

    Without a task group, this is `asyncio.create_task`: the task's result and exception are unchanged, and a strong
    reference is kept while it runs, as in pydis_core. In a task group, on asyncio or trio, a failure does not cancel
    the group.

    Args:
        coro: A coroutine that has not started. If the task cannot be started, it is closed.
        suppressed_exceptions: Exceptions that are not logged.
        event_loop: The asyncio event loop in which to start the task, instead of the running one.
        task_group: The anyio task group in which to start the task.
        kwargs: Passed on to `asyncio.create_task` or `anyio.abc.TaskGroup.create_task`: ``name``, ``context``.

    Returns:
        An `asyncio.Task`, or in a task group an `anyio.TaskHandle`.

    Raises:
        RuntimeError: if there is neither a task group nor an asyncio event loop, as on trio, where every task belongs
            to a nursery.
        TypeError: if ``coro`` is not a coroutine, or an argument is wrong.
        ValueError: if the coroutine was already started; it is left alone.
    """
    try:
        if not is_coroutine(coro):
            raise TypeError(f"expected a coroutine, not {type(coro).__name__}: {format_value(coro)}")
        check_target(coro, ())
        isinstance(None, suppressed_exceptions)  # raises now the TypeError that the task's exception would cause
        if task_group is None:
            return _create_asyncio_task(coro, suppressed_exceptions, event_loop, kwargs)
        if event_loop is not None:
            raise TypeError("pass an event_loop or a task_group, not both")
        if not isinstance(task_group, TaskGroup):
            raise TypeError(f"task_group must be an anyio task group, not {type(task_group).__name__}")
        return _create_group_task(coro, suppressed_exceptions, task_group, kwargs)
    except BaseException:
        close_unstarted(coro)
        raise


def _create_asyncio_task(
    coro: Coroutine[Any, Any, T],
    suppressed: tuple[type[BaseException], ...],
    loop: asyncio.AbstractEventLoop | None,
    kwargs: dict[str, Any],
) -> asyncio.Task[T]:
    import asyncio

    if loop is None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "there is no running asyncio event loop to start a task in; on trio, or if the task should belong "
                "to a task group, pass task_group=..."
            ) from None
    task: asyncio.Task[T] = loop.create_task(coro, **kwargs)
    _background.add(task)
    scheduled_at = call_site() if is_debugging() else None
    task.add_done_callback(partial(_report, suppressed, scheduled_at))
    return task


def _report(suppressed: tuple[type[BaseException], ...], scheduled_at: str | None, task: asyncio.Task[Any]) -> None:
    _background.discard(task)
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        _log_failure(failure, suppressed, task.get_name(), scheduled_at)


def _create_group_task(
    coro: Coroutine[Any, Any, T],
    suppressed: tuple[type[BaseException], ...],
    task_group: TaskGroup,
    kwargs: dict[str, Any],
) -> anyio.TaskHandle[T]:
    async def run() -> T | None:
        backend = current_backend()
        value: T | None = None
        try:
            value = await coro
        except BaseException as exception:
            if is_fatal(exception):
                raise
            failure, _ = split_failure(exception, backend.cancelled_exc_class)
            if failure is not None:
                _log_failure(failure, suppressed, handle.name, scheduled_at)
            # The exception must not propagate, or the group would be cancelled, but the handle must have it, and
            # anyio offers no other way to set it. (This also concerns cancellations that were not requested: on
            # asyncio, these would cancel the group.)
            handle._exception = exception
        if backend.has_pending_cancellation(backend.current_task()):
            with suppress(backend.cancelled_exc_class):
                await cancel_shielded_checkpoint()
            handle._exception = handle._exception or backend.cancelled_exc_class()
        return value

    scheduled_at = call_site() if is_debugging() else None
    name = kwargs.pop("name", None) or getattr(coro, "__qualname__", repr(coro))
    handle: anyio.TaskHandle[T] = task_group.create_task(LazyCoroutine(run, coro), name=name, **kwargs)
    return handle


def _log_failure(
    failure: BaseException, suppressed: tuple[type[BaseException], ...], name: str, scheduled_at: str | None
) -> None:
    if isinstance(failure, suppressed):
        return
    if scheduled_at is None:
        _log.error("Error in task %s!", printable(name), exc_info=failure)
    else:
        _log.error("Error in task %s!" + SCHEDULED_AT, printable(name), scheduled_at, exc_info=failure)
