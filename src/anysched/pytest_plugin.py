"""The pytest plugin: fixtures for virtual time. pytest loads it, and it does nothing until a fixture is requested."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from ._core.lazy import LazyModule

if TYPE_CHECKING:
    from ._virtual import clock as virtual
else:
    virtual = LazyModule("anysched._virtual.clock")

__all__ = ["virtual_anyio_backend", "virtual_clock"]


# Module-scoped like anyio's own, so that Hypothesis accepts it and module-scoped async fixtures can use it.
@pytest.fixture(scope="module", params=["asyncio", "trio"] if find_spec("trio") else ["asyncio"])
def virtual_anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """A backend in virtual time, asyncio and trio in turn. Import it under the name ``anyio_backend``."""
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
