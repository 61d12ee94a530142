"""The pytest plugin: fixtures for virtual time. pytest loads it, and it does nothing until a fixture is requested."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from ._lazy import LazyModule

if TYPE_CHECKING:
    from ._virtual import clock as virtual
else:
    virtual = LazyModule("anysched._virtual.clock")

__all__ = ["virtual_anyio_backend", "virtual_clock"]


OTHER_PLUGINS = {
    "pytest_asyncio": ("pytest-asyncio", "pytest.mark.asyncio", "asyncio_mode = strict"),
    "pytest_trio": ("pytest-trio", "pytest.mark.trio", "trio_mode = false"),
}
"""Plugins that run async tests in real time: module, name, marker and setting for the strict mode."""


# Module-scoped like anyio's own, so that Hypothesis accepts it and module-scoped async fixtures can use it.
@pytest.fixture(scope="module", params=["asyncio", "trio"] if find_spec("trio") else ["asyncio"])
def virtual_anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """A backend in virtual time, for asyncio and trio in turn. Import it under the name ``anyio_backend``."""
    return virtual.VirtualClock().backend(request.param)


@pytest.fixture
def virtual_clock(anyio_backend: object) -> Iterator[virtual.VirtualClock]:
    """The virtual clock of the test's event loop; requires an ``anyio_backend`` in virtual time.

    ``autojump`` is restored after the test.
    """
    clock = virtual.VirtualClock.of_backend(anyio_backend)
    autojump = clock.autojump
    yield clock
    clock.autojump = autojump


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Fail a test that requests virtual time but is run by a plugin other than anyio's, and so in real time."""
    plugin = OTHER_PLUGINS.get(_module_of(pyfuncitem.obj))
    if plugin is not None and _clock_of(pyfuncitem) is not None:
        name, marker, strict = plugin
        pytest.fail(
            f"{pyfuncitem.name} requests virtual time, but {name} runs it in real time. Mark it with pytest.mark.anyio "
            f"(not with {marker}), and use the strict mode of {name}: {strict}",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the virtual clock's seed to the report of a failed test."""
    report = yield
    clock = _clock_of(item) if report.failed else None
    if clock is not None and clock.seed is not None:
        report.sections.append(
            ("virtual time", f"Ready tasks were shuffled. VirtualClock(seed={clock.seed}) repeats their order.")
        )
    return report


def _module_of(test: Any) -> str:
    """Return the name of the package that runs a test, which has replaced the async function with its own function."""
    function = test.hypothesis.inner_test if hasattr(test, "hypothesis") else test
    scope: dict[str, Any] = getattr(getattr(function, "__func__", function), "__globals__", {})
    return str(scope.get("__name__")).partition(".")[0]


def _clock_of(item: pytest.Item) -> virtual.VirtualClock | None:
    """Return the virtual clock of a test, if it has one."""
    if "anysched._virtual.clock" not in sys.modules:  # do not import it for tests in real time
        return None
    backend: object = getattr(item, "funcargs", {}).get("anyio_backend")
    try:
        return virtual.VirtualClock.of_backend(backend)
    except RuntimeError:
        return None
