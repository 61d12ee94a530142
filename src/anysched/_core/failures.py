"""Splitting failures from cancellations, and deciding which of several exceptions to raise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

__all__ = ["exit_exception", "is_fatal", "sole_exception", "split_failure"]


def split_failure(exception: BaseException, cancelled: type[BaseException]) -> tuple[BaseException | None, bool]:
    """Split the exception of a task; return the failure, if any, and whether the task was cancelled.

    Args:
        exception: The exception; an exception group may contain both failures and cancellations.
        cancelled: The exception class of cancellations.
    """
    if isinstance(exception, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exception)
        cancellation, failure = group.split(cancelled)
        return (group, False) if cancellation is None else (failure, True)
    # The coroutine of a task is closed (`GeneratorExit`) when its event loop is gone.
    return (None, True) if isinstance(exception, (cancelled, GeneratorExit)) else (exception, False)


def is_fatal(exception: BaseException) -> bool:
    """Return whether an exception is a request to end the process, which propagates out of the scheduler."""
    if isinstance(exception, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exception)
        return group.subgroup((KeyboardInterrupt, SystemExit)) is not None
    return isinstance(exception, (KeyboardInterrupt, SystemExit))


def sole_exception(exception: BaseException) -> BaseException:
    """Return the only exception in a group without the group; return other exceptions unchanged."""
    while isinstance(exception, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exception)
        only, *others = group.exceptions
        if others:
            return group
        exception = only
    return exception


def exit_exception(
    body: BaseException | None, others: Sequence[BaseException], cancelled: type[BaseException]
) -> BaseException | None:
    """Return the exception that an ``async with`` block must raise instead of the exception of its body.

    A failure is never replaced by a cancellation; several failures are raised as a group, as by anyio's task groups. An
    exception that was raised several times counts once.

    Args:
        body: The exception of the body, if any.
        others: The exceptions that were raised while leaving.
        cancelled: The exception class of cancellations.

    Returns:
        An exception to raise, or `None` to leave the outcome of the body unchanged.
    """
    failed = [body] if body is not None and split_failure(body, cancelled)[0] is not None else []
    found = _distinct(others, failed)
    failures = [sole_exception(other) for other in found if split_failure(other, cancelled)[0] is not None]
    if failures:
        if failed or len(failures) > 1:
            return BaseExceptionGroup("multiple exceptions left a scheduler", [*failed, *failures])
        return failures[0]
    if body is None and others:
        return others[-1]
    return None


def _distinct(exceptions: Iterable[BaseException], known: Iterable[BaseException]) -> list[BaseException]:
    """Return the exceptions that are not known, and not listed before, on their own or in a group."""
    seen = {id(leaf) for exception in known for leaf in _leaves(exception)}

    def is_seen(exception: BaseException) -> bool:
        return id(exception) in seen

    found: list[BaseException] = []
    for exception in exceptions:
        leaves = [*_leaves(exception)]
        remaining: BaseException | None = exception
        if all(map(is_seen, leaves)):
            remaining = None
        elif any(map(is_seen, leaves)):
            group = cast("BaseExceptionGroup[BaseException]", exception)
            remaining = group.split(is_seen)[1]
        if remaining is not None:
            found.append(remaining)
        seen.update(map(id, leaves))
    return found


def _leaves(exception: BaseException) -> Iterator[BaseException]:
    """Yield an exception, or the exceptions in a group, at any depth."""
    if isinstance(exception, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exception)
        for each in group.exceptions:
            yield from _leaves(each)
    else:
        yield exception
