"""What can be scheduled: a coroutine, or a function that makes one. A coroutine handed over is awaited or closed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from inspect import CO_COROUTINE, isasyncgenfunction, isgeneratorfunction
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "COROUTINE_TYPE",
    "LazyCoroutine",
    "Target",
    "check_target",
    "close_unstarted",
    "is_coroutine",
    "make_coroutine",
]

COROUTINE_TYPE: Any = CoroutineType
"""That of native coroutines; the type of a value does not have the parameters that type checkers want here."""

Target: TypeAlias = Coroutine[Any, Any, Any] | Callable[..., Coroutine[Any, Any, Any]]


def is_coroutine(value: object) -> TypeIs[Coroutine[Any, Any, Any]]:
    """Return whether ``value`` is a coroutine (not: a coroutine function)."""
    kind = type(value)
    return kind is CoroutineType or (kind is not FunctionType and isinstance(value, Coroutine))  # slow to ask


def check_target(target: object, args: tuple[object, ...]) -> None:
    """Check that ``target`` is something that a task can run.

    A function is not required to be declared with ``async def``: one that returns a coroutine, such as a lambda or a
    decorated function, will do, as in anyio. What it returns is checked when it is called.

    Args:
        target: A coroutine that has not started, or a function.
        args: The positional arguments for the function.

    Raises:
        TypeError: if it is neither, or if there are arguments for a coroutine.
        ValueError: if the coroutine has been started, because it is being run elsewhere.
    """
    # The usual kinds first: this is on the path of every scheduling call.
    if type(target) is FunctionType and target.__code__.co_flags & CO_COROUTINE:
        return
    if type(target) is COROUTINE_TYPE or is_coroutine(target):
        if _was_started(target):
            raise ValueError(f"cannot schedule a coroutine that was already started: {target!r}")
        if args:
            raise TypeError(f"a coroutine takes no arguments: pass the function and its arguments, not {target!r}")
    elif isgeneratorfunction(target) or isasyncgenfunction(target):
        raise TypeError(
            "expected a coroutine or a coroutine function, not a generator function: iterate over it in a coroutine "
            f"function, and schedule that instead of {target!r}"
        )
    elif not callable(target) or isinstance(target, type):
        raise TypeError(f"expected a coroutine or a coroutine function, not {type(target).__name__}: {target!r}")


def make_coroutine(target: Target, args: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
    """Return the coroutine to await.

    Raises:
        RuntimeError: if the coroutine has started or ended in the meantime.
        TypeError: if the function returns something else.
    """
    if type(target) is not FunctionType and is_coroutine(target):
        _check_fresh(target)
        return target
    coroutine: object = target(*args)
    if not is_coroutine(coroutine):
        raise TypeError(
            f"expected {target!r} to return a coroutine, but it returned {coroutine!r}; declare it with `async def`, "
            "or pass anyio.to_thread.run_sync and the function, which then runs in a thread"
        )
    return coroutine


def _check_fresh(coroutine: object) -> None:
    """Refuse a coroutine that was awaited or closed after it was scheduled.

    Raises:
        RuntimeError: if that is so.
    """
    # By its frame and not as in `_was_started`: it is about to have one.
    if type(coroutine) is CoroutineType and (
        coroutine.cr_suspended or coroutine.cr_running or coroutine.cr_frame is None
    ):
        raise RuntimeError(
            f"{coroutine!r} has been awaited or closed since it was scheduled: a coroutine runs once, under one ID; "
            "to schedule it under several, pass the function and its arguments"
        )


def close_unstarted(target: object) -> None:
    """Close ``target`` if it is a coroutine that has not started; nothing else needs to be closed, or may be."""
    if type(target) is CoroutineType:
        if not target.cr_suspended and not target.cr_running:
            target.close()
    elif target is not None and is_coroutine(target) and not _is_foreign_and_started(target):
        target.close()


def _was_started(coroutine: Any) -> bool:
    """Return whether a coroutine has started, has run to its end, or has been closed."""
    if type(coroutine) is not COROUTINE_TYPE:
        return _is_foreign_and_started(coroutine)
    if coroutine.cr_suspended or coroutine.cr_running:
        return True
    # One that is over has no frame; but to look for the frame where there is one makes an object of it, 150 bytes that
    # stay as long as the coroutine. So it is asked for what it must refuse: one that has not started takes no value.
    try:
        coroutine.send(True)
    except TypeError:
        return False
    except RuntimeError:
        pass
    return True


def _is_foreign_and_started(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Return whether a coroutine has started that is not native: one from Cython, or an object with the same methods."""
    # Take its word, where it gives it.
    return getattr(coroutine, "cr_suspended", False) or getattr(coroutine, "cr_running", False)


class LazyCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine that is made when it is first awaited.

    An event loop that shuts down may drop a task before its first step, and a native coroutine would then be reported
    as never awaited.

    Args:
        make: Makes the coroutine.
        wrapped: A coroutine to close if this one is dropped.
    """

    __slots__ = ("_make", "_wrapped")

    def __init__(
        self, make: Callable[[], Coroutine[Any, Any, Any]], wrapped: Coroutine[Any, Any, Any] | None = None
    ) -> None:
        self._make: Callable[[], Coroutine[Any, Any, Any]] | None = make
        self._wrapped = wrapped

    def __await__(self) -> Generator[Any, Any, Any]:
        make = self._make
        assert make is not None
        self._make = self._wrapped = None  # anyio's handle of the task keeps this object, which must not keep the task
        return make().__await__()

    def send(self, value: Any, /) -> Any:
        """Not called on an object that is awaited."""
        raise NotImplementedError

    def throw(self, *args: Any) -> Any:
        """Not called on an object that is awaited."""
        raise NotImplementedError

    def close(self) -> None:
        """Drop it."""
        close_unstarted(self._wrapped)
        self._wrapped = None

    __del__ = close
