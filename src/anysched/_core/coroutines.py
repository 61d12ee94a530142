"""Targets of tasks: coroutines, and functions that return them. Every coroutine is awaited or closed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from inspect import isasyncgenfunction, isgeneratorfunction
from types import CoroutineType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeAlias

from .texts import format_value

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "COROUTINE_TYPE",
    "LazyCoroutine",
    "Target",
    "check_target",
    "close_unstarted",
    "function_behind",
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

    A function need not be declared with ``async def``: as in anyio, any function that returns a coroutine is accepted,
    such as a lambda or a decorated function. Its return value is checked when it is called.

    Args:
        target: A coroutine that has not started, or a function.
        args: The positional arguments for the function.

    Raises:
        TypeError: if it is neither, or if there are arguments for a coroutine.
        ValueError: if the coroutine was already started.
    """
    kind: Any = type(target)
    if kind is COROUTINE_TYPE or is_coroutine(target):
        coroutine: Any = target
        if kind is not COROUTINE_TYPE:
            started = _is_foreign_and_started(coroutine)
        elif not (started := coroutine.cr_suspended):
            # A coroutine that has ended has no frame. But reading the frame of one that has not would create a frame
            # object of 150 bytes, which lives as long as the coroutine. So use that a coroutine that has not started
            # refuses a value.
            started = True
            try:
                coroutine.send(True)
            except TypeError:
                started = False
            except (RuntimeError, ValueError):  # it has ended; it is running
                pass
        if started:
            raise ValueError(f"cannot schedule a coroutine that was already started: {format_value(target)}")
        if args:
            raise TypeError(
                f"a coroutine takes no arguments: pass the function and its arguments, not {format_value(target)}"
            )
    elif isgeneratorfunction(function := function_behind(target)) or isasyncgenfunction(function):
        raise TypeError(
            "expected a coroutine or a coroutine function, not a generator function: iterate over it in a coroutine "
            f"function, and schedule that instead of {format_value(target)}"
        )
    elif not callable(target) or isinstance(target, type):
        raise TypeError(
            f"expected a coroutine or a coroutine function, not {type(target).__name__}: {format_value(target)}"
        )


def function_behind(target: object) -> object:
    """Return the function that a partial, a method or an object with ``__call__`` calls."""
    while not isinstance(target, FunctionType):
        if isinstance(target, partial):
            target = target.func
        elif isinstance(target, MethodType):
            target = target.__func__
        else:
            call = getattr(type(target), "__call__", None)  # noqa: B004  # that of the type
            return call if isinstance(call, FunctionType) else target
    return target


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
            f"expected {format_value(target)} to return a coroutine, but it returned {format_value(coroutine)}; declare it with `async def`, "
            "or pass anyio.to_thread.run_sync and the function, to run it in a thread"
        )
    return coroutine


def _check_fresh(coroutine: object) -> None:
    """Check that a coroutine was not awaited or closed after it was scheduled.

    Raises:
        RuntimeError: if it was.
    """
    # Look at the frame, unlike `check_target`, since the coroutine is about to start and have a frame anyway.
    if type(coroutine) is CoroutineType and (
        coroutine.cr_suspended or coroutine.cr_running or coroutine.cr_frame is None
    ):
        raise RuntimeError(
            f"{coroutine!r} has been awaited or closed since it was scheduled: a coroutine runs once, under one ID; "
            "to schedule it under several, pass the function and its arguments"
        )


def close_unstarted(target: object) -> None:
    """Close ``target`` if it is a coroutine that has not started; other targets must not be closed."""
    if type(target) is CoroutineType:
        if not target.cr_suspended and not target.cr_running:
            target.close()
    elif target is not None and is_coroutine(target) and not _is_foreign_and_started(target):
        target.close()


def _is_foreign_and_started(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Return whether a coroutine has started that is not native, such as one from Cython."""
    # Such coroutines need not have these attributes.
    return getattr(coroutine, "cr_suspended", False) or getattr(coroutine, "cr_running", False)


class LazyCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine that is created when it is first awaited.

    When an event loop shuts down, it may drop a task before its first step, and Python would then report a native
    coroutine as never awaited.

    Args:
        make: Creates the coroutine.
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
        """Close the wrapped coroutine."""
        close_unstarted(self._wrapped)
        self._wrapped = None

    __del__ = close
