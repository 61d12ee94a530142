"""The hints of public names resolve at run time: frameworks and documentation tools evaluate them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from types import ModuleType

import pytest

import anysched


def public_modules() -> Iterator[ModuleType]:
    """Return the package and its public modules, at any depth, where their extras are installed."""
    yield anysched
    for info in pkgutil.walk_packages(anysched.__path__, "anysched.", onerror=lambda name: None):
        if not any(part.startswith("_") for part in info.name.split(".")[1:]):
            try:
                yield importlib.import_module(info.name)
            except ModuleNotFoundError as error:
                if str(error.name).partition(".")[0] == "anysched":
                    raise


def hinted() -> Iterator[object]:
    """Return the public objects with hints, by name: functions, classes, and methods and properties of classes."""
    for module in public_modules():
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value):
                yield pytest.param(value, id=f"{module.__name__}.{name}")
                for attribute, member in inspect.getmembers_static(value):
                    function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                    if inspect.isfunction(function) and (not attribute.startswith("_") or attribute == "__init__"):
                        yield pytest.param(function, id=f"{module.__name__}.{name}.{attribute}")
            elif inspect.isroutine(value):
                yield pytest.param(value, id=f"{module.__name__}.{name}")


@pytest.mark.parametrize("value", list(hinted()))
def test_hints_resolve(value: typing.Any) -> None:
    hints = typing.get_type_hints(value)
    assert not [name for name, hint in hints.items() if isinstance(hint, str)]
    for overload in typing.get_overloads(value) if inspect.isfunction(value) else ():
        typing.get_type_hints(overload)


def test_the_hints_of_create_task_are_those_of_asyncio() -> None:
    import asyncio

    assert typing.get_type_hints(anysched.create_task)["event_loop"] == asyncio.AbstractEventLoop | None
