"""The matrix of event loops, and what most tests need."""

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from anysched import Scheduler


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("asyncio", {"debug": True}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(("trio", {}), id="trio"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def scheduler(anyio_backend: Any) -> AsyncIterator[Scheduler]:
    async with Scheduler("test") as scheduler:
        yield scheduler


@pytest.fixture(autouse=True, scope="module")
def nothing_left_unawaited() -> Iterator[None]:
    """A coroutine in a reference cycle is only reported as never awaited when it is collected."""
    yield
    gc.collect()
