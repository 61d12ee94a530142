"""The functions that tasks run, registered under the names that are stored."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import Signature, signature
from typing import Any, TypeAlias

from .errors import UnknownHandlerError

__all__ = ["Handler", "Handlers"]

Handler: TypeAlias = Callable[..., Coroutine[Any, Any, object]]


class Handlers:
    """The handlers of one scheduler.

    Args:
        scheduler: The name of the scheduler, for error messages.
    """

    def __init__(self, scheduler: str) -> None:
        self._scheduler = scheduler
        self._functions: dict[str, Handler] = {}
        self._names: dict[Handler, str] = {}
        self._signatures: dict[str, Signature | None] = {}
        self._accepted: dict[str, set[int]] = {}  # with which numbers of arguments each can be called

    @property
    def names(self) -> frozenset[str]:
        """The names of all handlers."""
        return frozenset(self._functions)

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def add(self, name: str, function: Handler) -> None:
        """Register a function.

        Raises:
            TypeError: if the name is not a string, or the function cannot be called.
            ValueError: if the name or the function is registered already.
        """
        if not callable(function):
            raise TypeError(f"a handler must be a function that returns a coroutine, not {function!r}")
        if name in self._functions:
            raise ValueError(f"scheduler {self._scheduler!r} already has a handler {name!r}: {self._functions[name]!r}")
        if function in self._names:
            raise ValueError(f"{function!r} is already the handler {self._names[function]!r}: a function has one name")
        try:
            self._signatures[name] = signature(function).replace(return_annotation=Signature.empty)
        except (TypeError, ValueError):  # a function of C may have none
            self._signatures[name] = None
        self._accepted[name] = set()
        self._functions[name] = function
        self._names[function] = name

    def name_of(self, function: Handler) -> str:
        """Return the name of a function.

        Raises:
            TypeError: if it is not a function.
            UnknownHandlerError: if it is not registered.
        """
        if isinstance(function, Coroutine):
            function.close()
            raise TypeError(
                f"a coroutine cannot be stored: pass the handler and its arguments instead, not {function!r}"
            )
        if not callable(function):
            raise TypeError(f"pass a handler, a function that was registered with a name, not {function!r}")
        try:
            return self._names[function]
        except KeyError:
            raise UnknownHandlerError(self._scheduler, [repr(function)]) from None

    def check_args(self, name: str, args: tuple[Any, ...]) -> None:
        """Check that a registered handler accepts the arguments.

        Raises:
            TypeError: if it does not.
        """
        found = self._signatures[name]
        accepted = self._accepted[name]
        # They are positional: only their number counts.
        if found is not None and len(args) not in accepted:
            try:
                found.bind(*args)
            except TypeError as error:
                raise TypeError(f"the handler {name!r}{found} cannot be called with {args!r}: {error}") from None
            accepted.add(len(args))

    def function(self, name: str) -> Handler:
        """Return the function that is registered under a name."""
        return self._functions[name]
