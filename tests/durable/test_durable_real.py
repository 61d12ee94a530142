"""The durable tier in real time, on all event loops: uvloop's time cannot be virtual."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import from_thread, to_thread

from anysched.durable import DurableScheduler, SQLiteStore
from support import EVENT_LOOPS

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_it_runs_what_is_due_and_what_was_interrupted(tmp_path: Path) -> None:
    ran = []

    def make() -> DurableScheduler:
        scheduler = DurableScheduler("real", SQLiteStore(tmp_path / "store.db", synchronous="normal"))

        @scheduler.handler("note")
        async def note(text: str) -> None:
            ran.append(text)

        @scheduler.handler("hang")
        async def hang() -> None:
            ran.append("hang")
            if ran.count("hang") == 1:
                await anyio.sleep_forever()

        make.note, make.hang = note, hang  # type: ignore[attr-defined]
        return scheduler

    async with make() as scheduler:
        await scheduler.schedule("hang", make.hang)  # type: ignore[attr-defined]
        await scheduler.schedule_later(0.01, "soon", make.note, "soon")  # type: ignore[attr-defined]
        for number in range(100):
            await scheduler.schedule(number, make.note, str(number))  # type: ignore[attr-defined]
        await scheduler.schedule_later(3_600, "later", make.note, "later")  # type: ignore[attr-defined]
        while len(ran) < 102:
            await anyio.sleep(0.01)
        assert [text for text in ran if text not in ("hang", "soon")] == [str(number) for number in range(100)]
    async with make() as scheduler:
        assert await scheduler.cancel("later")
        await scheduler.join()
    assert ran.count("hang") == 2


async def test_a_call_from_another_thread_is_refused(tmp_path: Path) -> None:
    async with DurableScheduler("real", SQLiteStore(tmp_path / "store.db")) as scheduler:

        def call() -> None:
            with pytest.raises(
                RuntimeError, match=r"called from another thread .* call it with anyio\.from_thread\.run"
            ):
                anyio.run(scheduler.holds, "id")
            assert not from_thread.run(scheduler.holds, "id")

        await to_thread.run_sync(call)


async def test_busy_threads_of_the_program_do_not_delay_commits(tmp_path: Path) -> None:
    release = threading.Event()
    limiter = to_thread.current_default_thread_limiter()
    async with (
        DurableScheduler("real", SQLiteStore(tmp_path / "store.db")) as scheduler,
        anyio.create_task_group() as group,
    ):
        for _ in range(int(limiter.total_tokens)):
            group.start_soon(partial(to_thread.run_sync, release.wait))
        await anyio.sleep(0.01)
        assert not limiter.available_tokens
        try:
            with anyio.fail_after(30):
                assert not await scheduler.holds("id")
        finally:
            release.set()
