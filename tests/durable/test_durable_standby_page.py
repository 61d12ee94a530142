"""The dashboard where several processes share a store, as each of them shows it. In real time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from dashboard_client import opened

from anysched.durable import DurableScheduler
from anysched.durable.postgres import PostgresStore
from anysched.web import durable as durable_module

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def until(function: Callable[[], Awaitable[object]], expected: object) -> None:
    with anyio.fail_after(60):
        while await function() != expected:
            await anyio.sleep(0.02)


async def test_a_standby_shows_what_the_store_has(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_module, "MAX_AGE", 0)
    monkeypatch.setattr(durable_module, "INTERVAL", 0.02)
    ended: list[str] = []

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    async def work() -> None:
        ended.append("worked")

    def make(participate: Any = "run") -> DurableScheduler:
        scheduler = DurableScheduler("shared", PostgresStore(database), participate=participate)
        scheduler.handler("wait")(wait)
        scheduler.handler("work")(work)
        return scheduler

    async with make() as first, make() as second, make("verbs") as third:
        await first.schedule("running", wait)
        await third.schedule_later(3_600, "pending", work)
        await second.schedule_later(3_600, "paused", work)
        await second.pause("paused")
        expected = {("running", "running"), ("pending", "pending"), ("paused", "paused")}
        for scheduler, role in ((first, "owner"), (second, "standby"), (third, "verbs")):
            async with opened(scheduler) as page:

                async def ids(page: Any = page) -> set[Any]:
                    return set(await page.ids())

                await until(ids, expected)
                numbers = await page.numbers()
                assert (numbers["roles"], numbers["pending"], numbers["running"]) == ([role], 2, 1)
        async with opened(second) as page:
            assert (await page.detail("pending"))["actions"] == ["run", "postpone", "pause", "cancel"]
            assert await page.act("running", "cancel") == (200, "{}")
            assert await page.act("pending", "run") == (200, "{}")
            await until(page.ids, [("paused", "paused")])

            async def seen() -> list[str]:
                return sorted(ended)

            await until(seen, ["cancelled", "worked"])
            await first.close()

            async def roles() -> object:
                return (await page.numbers())["roles"]

            await until(roles, ["owner"])
            assert await page.ids() == [("paused", "paused")]
