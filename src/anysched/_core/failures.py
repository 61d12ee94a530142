"""Splitting what a task raised into failures and cancellations."""

from __future__ import annotations

from typing import cast

__all__ = ["is_fatal", "sole_exception", "split_failure"]


def split_failure(exception: BaseException, cancelled: type[BaseException]) -> tuple[BaseException | None, bool]:
    """Split what a task raised into its failure, if any, and whether it was cancelled.

    Args:
        exception: What was raised; an exception group may mix failures with cancellations.
        cancelled: The exception class of cancellations.
    """
    if isinstance(exception, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exception)
        cancellation, failure = group.split(cancelled)
        return (group, False) if cancellation is None else (failure, True)
    # The coroutine of a task is closed (`GeneratorExit`) when its event loop is gone.
    return (None, True) if isinstance(exception, (cancelled, GeneratorExit)) else (exception, False)


def is_fatal(exception: BaseException) -> bool:
    """Return whether an exception is a request to end the process, which leaves the scheduler."""
    if isinstance(exception, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exception)
        return group.subgroup((KeyboardInterrupt, SystemExit)) is not None
    return isinstance(exception, (KeyboardInterrupt, SystemExit))


def sole_exception(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the exception in a group, without the group, if it is the only one; else the group."""
    only, *others = group.exceptions
    if others:
        return group
    if isinstance(only, BaseExceptionGroup):
        return sole_exception(cast("BaseExceptionGroup[BaseException]", only))
    return only
