"""The dashboard of a durable scheduler: what its store has, and actions that are stored."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
from dashboard_client import opened

from anysched import Scheduler
from anysched.durable import DurableScheduler, MemoryStore, StoreError
from anysched.durable.operations import Claim, Park, Put
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from anysched.web import durable as durable_module

pytestmark = pytest.mark.anyio

HOUR = 3600


class FaultyStore(MemoryStore):  # type: ignore[misc]  # it is final for others
    """A store that fails when it is told to."""

    fails = False

    def commit(self, operations: Any, /) -> list[Any]:
        if self.fails:
            raise StoreError("the disk is full")
        return super().commit(operations)


@pytest.fixture
def store() -> FaultyStore:
    """A store in which one task is parked, and one waits for its handler."""
    store = FaultyStore()
    store.open()
    store.commit([Put('["mail",7]', 0, 0, "work", "[]"), Claim(1, 0), Park(1, "TypeError: it does not fit")])
    store.commit([Put('"orphan"', 1, 1, "gone", "[]")])
    store.close()
    return store


class Program:
    """A durable scheduler with a handler, which notes its runs."""

    def __init__(self, store: MemoryStore) -> None:
        self.ran: list[str] = []
        self.scheduler = DurableScheduler("mails", store)
        self.scheduler.handler("work")(self.work)
        self.scheduler.handler("sleep")(anyio.sleep)

    async def work(self, text: str = "") -> None:
        self.ran.append(text)


async def test_what_the_store_has_is_shown(store: FaultyStore) -> None:
    program = Program(store)
    async with opened(program.scheduler) as page, program.scheduler as scheduler:
        await scheduler.schedule_later(HOUR, "later", program.work, "later")
        await scheduler.schedule_later(HOUR, "paused", program.work)
        await scheduler.pause("paused")
        await scheduler.schedule("now", anyio.sleep, HOUR)
        await anyio.sleep(1)
        everything = {
            ("('mail', 7)", "parked"), ("orphan", "unknown"), ("now", "running"), ("later", "pending"), ("paused", "paused"),
        }  # fmt: skip
        assert set(await page.ids()) == everything
        assert [status for _, status in await page.ids(order="descending")][-2:] == ["unknown", "parked"]
        assert await page.ids(status="parked") == [("('mail', 7)", "parked")]
        assert await page.ids(status="unknown") == [("orphan", "unknown")]
        assert await page.ids(status="paused") == [("paused", "paused")]
        assert await page.ids(status="paused", search="x") == []
        assert await page.ids(scheduler="others") == []
        assert len(await page.ids(scheduler="mails")) == 5
        (row,) = await page.rows(search="MAIL")
        assert row["failure"] == "TypeError: it does not fit"
        numbers = await page.numbers()
        assert {name: numbers[name] for name in ("pending", "running", "parked", "unknown")} == {
            "pending": 2, "running": 1, "parked": 1, "unknown": 1,
        }  # fmt: skip
        parked = await page.detail("('mail', 7)")
        assert (parked["status"], parked["problem"]) == ("parked", "TypeError: it does not fit")
        assert parked["actions"] == ["retry", "cancel"]
        assert (await page.detail("orphan"))["actions"] == ["cancel"]
        assert (await page.detail("paused"))["actions"] == ["postpone", "resume", "cancel"]
        later = await page.detail("later")
        assert (later["status"], later["location"], later["problem"]) == ("pending", None, None)
        assert later["actions"] == ["run", "postpone", "pause", "cancel"]
        assert (await page.detail("now"))["actions"] == ["cancel"]


async def test_schedulers_in_memory_have_nothing_parked(store: FaultyStore) -> None:
    async with Scheduler("memory") as memory, opened(memory) as page:
        numbers = await page.numbers()
        assert (numbers["parked"], numbers["unknown"], numbers["roles"]) == (None, None, [])
    program = Program(store)
    async with Scheduler("memory") as memory, opened(memory, program.scheduler) as page, program.scheduler:
        task = memory.schedule_later(HOUR, "id", anyio.sleep, 1)
        numbers = await page.numbers()
        assert (numbers["pending"], numbers["parked"], numbers["schedulers"]) == (1, 1, ["mails", "memory"])
        assert await page.act("id", "pause") == (200, "{}")
        assert task.paused
        assert set(await page.ids()) == {("('mail', 7)", "parked"), ("orphan", "unknown"), ("id", "paused")}


async def test_what_is_parked_is_retried(store: FaultyStore) -> None:
    program = Program(store)
    async with opened(program.scheduler) as page, program.scheduler:
        assert await page.act("('mail', 7)", "run") == (409, "the task is parked now")
        key = await page.key("('mail', 7)")
        assert await page.act_by_key(key, "retry") == (200, "{}")
        await anyio.sleep(1)
        assert program.ran == [""]
        assert await page.ids() == [("orphan", "unknown")]
        assert await page.act_by_key(key, "retry") == (409, "the task has ended")
        # It is still known by its run.
        response = await page.client.get(f"/api/tasks/{key}")
        assert (response.json()["status"], response.json()["due"], response.json()["actions"]) == ("finished", None, [])
        assert await page.act("orphan", "cancel") == (200, "{}")
        assert await page.ids() == []


async def test_actions_are_stored(store: FaultyStore) -> None:
    program = Program(store)
    async with opened(program.scheduler) as page, program.scheduler as scheduler:
        for task_id in ("a", "b", "c"):
            await scheduler.schedule_later(HOUR, task_id, program.work, task_id)

        async def due(task_id: str) -> float:
            task = await scheduler.get(task_id)
            assert task is not None
            return round((task.due - scheduler.now()).total_seconds() + anyio.current_time() - began)

        began = anyio.current_time()
        assert await page.act("a", "postpone", seconds=60) == (200, "{}")
        assert await due("a") == HOUR + 60
        status, text = await page.act("a", "postpone", seconds=0)
        assert (status, text) == (400, "seconds must be a positive number, at most a year")
        assert await page.act("b", "pause") == (200, "{}")
        assert await page.act("b", "resume") == (200, "{}")
        assert await page.act("c", "run") == (200, "{}")
        await anyio.sleep(1)
        assert program.ran == ["c"]
        assert await page.act("b", "cancel") == (200, "{}")
        assert await page.act("a", "nonsense") == (
            400, "unknown action; the actions are run, postpone, pause, resume, retry, cancel",
        )  # fmt: skip
    async with Program(store).scheduler as scheduler:
        assert {task.task_id async for task in scheduler.tasks()} == {"a", ("mail", 7), "orphan"}


async def test_a_task_at_the_end_of_the_calendar_is_not_postponed(store: FaultyStore) -> None:
    program = Program(store)
    async with opened(program.scheduler) as page, program.scheduler as scheduler:
        await scheduler.schedule_later(timedelta(days=10**8), "last", program.work)
        before = await scheduler.get("last")
        assert await page.act("last", "postpone", seconds=HOUR) == (200, "{}")
        after = await scheduler.get("last")
        assert before is not None
        assert after is not None
        assert after.due == before.due


async def test_a_task_that_changes_in_the_meantime(store: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(store)
    async with opened(program.scheduler) as page, program.scheduler as scheduler:
        find = durable_module.DurableView.find

        async def find_and_cancel(view: Any, task_id: Any) -> Any:
            found = await find(view, task_id)
            await scheduler.cancel(task_id)
            return found

        key = await page.key("('mail', 7)")
        monkeypatch.setattr(durable_module.DurableView, "find", find_and_cancel)
        assert await page.act_by_key(key, "retry") == (409, "the task is no longer in that state")


async def test_a_store_that_fails(store: FaultyStore, caplog: pytest.LogCaptureFixture) -> None:
    program = Program(store)
    async with opened(program.scheduler) as page, program.scheduler as scheduler:
        await scheduler.schedule_later(HOUR, "later", program.work)
        key = await page.key("later")
        act = durable_module.DurableView.act

        async def act_and_fail(view: Any, *args: Any) -> bool:
            store.fails = True
            return await act(view, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(durable_module.DurableView, "act", act_and_fail)
            assert await page.act_by_key(key, "cancel") == (503, "the disk is full")
        response = await page.client.get(f"/api/tasks/{key}")
        assert (response.status_code, response.text) == (503, "the disk is full")
        assert await page.act_by_key(key, "cancel") == (503, "the disk is full")
        await anyio.sleep(2 * durable_module.MAX_AGE)
        assert await page.ids() == [("later", "pending")]  # tasks in memory are shown
        numbers = await page.numbers()
        assert (numbers["pending"], numbers["parked"]) == (1, None)
        store.fails = False
        await anyio.sleep(2 * durable_module.MAX_AGE)
        assert len(await page.ids()) == 3


async def test_before_and_after_the_scheduler_runs(store: FaultyStore) -> None:
    program = Program(store)
    async with opened(program.scheduler) as page:
        assert await page.ids() == []
        numbers = await page.numbers()
        assert (numbers["state"], numbers["roles"]) == ("new", ["owner"])
        async with program.scheduler:
            key = await page.key("orphan")
        await anyio.sleep(2 * durable_module.MAX_AGE)
        assert await page.ids() == []
        response = await page.client.get(f"/api/tasks/{key}")
        assert (response.status_code, response.json()["status"]) == (200, "ended")
        assert await page.act_by_key(key, "cancel") == (409, "the task has ended")


async def test_a_key_from_before_a_restart_is_found_in_the_store(store: FaultyStore) -> None:
    program = Program(store)
    async with opened(program.scheduler) as page, program.scheduler:
        key = await page.key("('mail', 7)")
    program = Program(store)
    async with opened(program.scheduler) as page, program.scheduler:
        assert await page.act_by_key(key, "retry") == (200, "{}")
        assert (await page.act_by_key("f" * 18, "retry"))[0] == 404


async def test_the_store_is_not_asked_at_each_request(store: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(store)
    asked: list[float] = []
    statistics = DurableScheduler.statistics

    async def count(scheduler: DurableScheduler) -> Any:
        asked.append(anyio.current_time())
        return await statistics(scheduler)

    monkeypatch.setattr(DurableScheduler, "statistics", count)
    async with opened(program.scheduler) as page, program.scheduler as scheduler:
        for _ in range(5):
            await page.ids()
        assert len(asked) == 1
        # What has changed is shown at once, but not more often than four times a second.
        for number in range(4):
            await scheduler.schedule_later(HOUR, number, program.work)
            assert len(await page.ids()) == 3 + number
        pauses = [later - earlier for earlier, later in pairwise(asked)]
        assert all(math.isclose(pause, durable_module.INTERVAL) for pause in pauses[1:])
        assert len(pauses) == 4


async def test_a_part_of_many_waiting_tasks_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_module, "MAX_WAITING", 3)
    store = MemoryStore()
    program = Program(store)
    async with opened(program.scheduler) as page, program.scheduler as scheduler:
        for number in range(5):
            await scheduler.schedule_later(HOUR, number, program.work)
            await scheduler.pause(number)
        assert len(await page.ids()) == 3
        assert (await page.numbers())["pending"] == 5


async def test_an_action_that_is_not_asked_for_is_not_there(store: FaultyStore) -> None:
    program = Program(store)
    async with opened(program.scheduler, actions=False) as page, program.scheduler:
        assert (await page.detail("('mail', 7)"))["actions"] == []
        assert (await page.act("('mail', 7)", "retry"))[0] == 404
