"""The types of `anysched.testing` as users see them; checked but not run."""

from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import pytest

from anysched.testing import NeverIdleError, VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return VirtualClock(datetime(2025, 1, 1, tzinfo=UTC), autojump=False).backend("asyncio", debug=True)


async def use(clock: VirtualClock) -> None:
    assert_type(clock.now(), datetime)
    assert_type(clock.monotonic(), float)
    assert_type(clock.time_ns(), int)
    assert_type(clock.autojump, bool)
    assert_type(VirtualClock.current(), VirtualClock)
    assert_type(await clock.advance(1), None)
    await clock.advance(timedelta(days=1))
    await clock.travel_to(clock.now())
    await clock.settle()
    clock.step_wall(-3600, notify=False)
    clock.suspend(timedelta(hours=2))
    with clock.hold():
        pass
    assert_type(clock.patch_datetime(), AbstractContextManager[None])
    clock.backend("uvloop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    clock.advance("1")  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]
    clock.start = clock.now()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def fail(error: NeverIdleError) -> None:
    assert_type(error.iterations, int)
    assert_type(error.tasks, tuple[str, ...])
    assert anyio_backend is not None
