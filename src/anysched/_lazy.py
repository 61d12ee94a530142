"""Lazy imports of modules that are used only in annotations."""

from __future__ import annotations

from importlib import import_module
from typing import Any, final

__all__ = ["LazyModule"]


@final
class LazyModule:
    """A module that is imported when one of its public attributes is read.

    A name that is only imported under ``if TYPE_CHECKING`` cannot be resolved by `typing.get_type_hints`, and so not by
    frameworks and documentation tools.

    Args:
        name: The full name of the module.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest looks for such names in every object of a plugin
            raise AttributeError(name)
        return getattr(import_module(self._name), name)
