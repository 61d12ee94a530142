"""Support for debugging: where a task was scheduled, and early checks of functions."""

from __future__ import annotations

import dis
import inspect
import sys
import time
from types import CodeType, FrameType, FunctionType
from typing import Any

from .coroutines import Target, function_behind, is_coroutine
from .texts import format_value, printable

__all__ = ["call_site", "check_call"]

# The packages that call callbacks. The frames below them only show where the event loop was started.
_EVENT_LOOPS = frozenset({"anyio", "asyncio", "trio", "uvloop"})

# What a function written in C returns cannot be inspected. These two are passed most often.
_RETURN_NONE = (print, time.sleep)

# The names of the instructions; which of them loads `None` depends on the version of Python.
_LOAD_CONSTANT = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_COMMON_CONSTANT"})

# Annotations may use names that are only imported for type checkers.
_SIGNATURE_OPTIONS: dict[str, Any] = {"follow_wrapped": False}
if sys.version_info >= (3, 14):  # pragma: no cover
    import annotationlib

    _SIGNATURE_OPTIONS["annotation_format"] = annotationlib.Format.FORWARDREF


def call_site() -> str | None:
    """Return where the program calls this package, as ``file:line``; `None` if the event loop itself calls it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _package(frame) == "anysched":
        frame = frame.f_back
    if frame is None or _package(frame) in _EVENT_LOOPS:
        return None
    return printable(f"{frame.f_code.co_filename}:{frame.f_lineno}")


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def check_call(target: Target, args: tuple[object, ...]) -> None:
    """Check whether a function would fail when its task starts, as far as possible without calling it.

    Args:
        target: A coroutine, or a function.
        args: The positional arguments for the function.

    Raises:
        TypeError: if the function does not take these arguments, or cannot return a coroutine.
    """
    if is_coroutine(target):
        return
    function = function_behind(target)
    returns_none = any(function is other for other in _RETURN_NONE)
    if returns_none or (isinstance(function, FunctionType) and _returns_constants(function.__code__)):
        raise TypeError(
            f"expected a function that returns a coroutine, which {format_value(target)} does not; declare it with `async def`, "
            "or pass anyio.to_thread.run_sync and the function, to run it in a thread"
        )
    if hasattr(function, "__signature__"):
        return  # as declared, which a decorator may have copied from another function
    try:
        signature = inspect.signature(target, **_SIGNATURE_OPTIONS)
    except Exception:
        return  # it has none
    try:
        signature.bind(*args)
    except TypeError as error:
        count = f"{len(args)} positional argument{'' if len(args) == 1 else 's'}"
        raise TypeError(f"{format_value(target)} cannot be called with {count}: {error}") from None


def _returns_constants(code: CodeType) -> bool:
    """Return whether a function can return, and all of its returns are constants."""
    if code.co_flags & (inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        return False
    found = False
    before = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith("RETURN_"):
            is_constant = before in _LOAD_CONSTANT and not instruction.is_jump_target
            if not is_constant and instruction.opname != "RETURN_CONST":
                return False
            found = True
        before = instruction.opname
    return found
