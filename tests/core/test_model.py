"""The scheduler compared with a simple model: random sequences of all public calls, on both backends.

Time is either now or in an hour, so that after each step, when the event loop has come to rest, the model says exactly what
must have happened.
"""

from collections import Counter
from collections.abc import Coroutine
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal

import anyio
import hypothesis.strategies as st
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anysched import DuplicateTaskError, ScheduledTask, Scheduler, current_scheduled_task
from support import is_closed, settle

Kind = Literal[
    "finish",
    "fail",
    "wait",
    "stubborn",
    "cancel itself",
    "cancel all",
    "follow itself",
    "replace itself",
    "keep itself",
]
State = Literal["pending", "running", "cancelling", "finished", "failed", "cancelled"]

HOUR = 3600.0


class Job:
    """The model of a task, and the coroutine function that the task runs."""

    def __init__(self, world: "World", number: int, task_id: int, kind: Kind, links: int = 0) -> None:
        self.world = world
        self.number = number
        self.task_id = task_id
        self.kind = kind
        self.links = links
        self.state: State = "pending"
        self.recurs = False
        self.due = False
        self.paused = False
        self.task: ScheduledTask[int] | None = None
        self.coroutine: Coroutine[Any, Any, int] | None = None
        self.gate = anyio.Event()
        self.next: Job | None = None

    async def run(self) -> int:
        self.world.enter(self)
        try:
            return await self.act()
        finally:
            self.world.active[self.task_id] -= 1

    async def act(self) -> int:
        scheduler = self.world.scheduler
        match self.kind:
            case "fail":
                raise ValueError(self.number)
            case "wait":
                await self.gate.wait()
            case "stubborn":
                gate = self.gate  # the next run has another one
                try:
                    await gate.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        await gate.wait()
            case "cancel itself":
                scheduler.cancel(self.task_id)
                await anyio.lowlevel.checkpoint()
            case "cancel all":
                scheduler.cancel_all()
                await anyio.lowlevel.checkpoint()
            case "follow itself" | "replace itself" if self.next is not None:
                policy: Any = self.kind.split()[0]
                self.next.task = scheduler.schedule(self.task_id, self.next.run, on_conflict=policy)
                await anyio.lowlevel.checkpoint()
            case "keep itself":
                scheduler.schedule(self.task_id, self.run(), on_conflict="keep")
            case _:
                pass
        return self.number


class World:
    """A scheduler and its model: which tasks hold IDs, run and wait."""

    def __init__(self, scheduler: Scheduler, limit: int | None) -> None:
        self.scheduler = scheduler
        self.limit = limit
        self.jobs: list[Job] = []
        self.holders: dict[int, Job] = {}
        self.predecessors: dict[int, Job] = {}
        self.queue: list[Job] = []
        self.totals: Counter[str] = Counter()
        self.active: Counter[int] = Counter()
        self.closed = False

    def enter(self, job: Job) -> None:
        self.active[job.task_id] += 1
        assert self.active[job.task_id] == 1, "one ID runs twice"
        task = current_scheduled_task()
        assert task is not None
        assert task.task_id == job.task_id

    def new_job(self, task_id: int, kind: Kind, links: int = 0) -> Job:
        job = Job(self, len(self.jobs), task_id, kind, links)
        self.jobs.append(job)
        if kind in ("follow itself", "replace itself") and links:
            job.next = self.new_job(task_id, kind, links - 1)
        return job

    def draw(self, data: st.DataObject) -> Job | None:
        """Choose a job that has a handle: most often one that has not ended."""
        jobs = [job for job in self.jobs if job.task is not None]
        alive = [job for job in jobs if job.state in ("pending", "running", "cancelling")]
        if alive and data.draw(st.sampled_from([True, True, False]), label="alive"):
            jobs = alive
        return data.draw(st.sampled_from(jobs[-8:]), label="job") if jobs else None

    # The model

    def hold(self, job: Job, *, due: bool) -> None:
        self.holders[job.task_id] = job
        self.set_due(job, due=due)

    def set_due(self, job: Job, *, due: bool) -> None:
        if job in self.queue:
            self.queue.remove(job)
        job.due = due
        if due and not job.paused:
            self.queue.append(job)

    def pause(self, job: Job) -> bool:
        if self.holders.get(job.task_id) is not job or job.paused or not (job.state == "pending" or job.recurs):
            return False
        job.paused = True
        if job in self.queue:
            self.queue.remove(job)
        return True

    def resume(self, job: Job) -> bool:
        if not job.paused or job.state not in ("pending", "running", "cancelling"):
            return False
        job.paused = False
        if job.state == "pending":
            self.set_due(job, due=job.due)
        return True

    def reschedule(self, job: Job, *, soon: bool) -> bool:
        if job.state != "pending":
            return False
        self.set_due(job, due=soon)
        return True

    def displace(self, task_id: int, *, interrupt: bool) -> None:
        job = self.holders.pop(task_id)
        if job.state == "pending":
            self.set_due(job, due=False)
            self.end(job, "cancelled")
        else:
            self.predecessors[task_id] = job
            if interrupt:
                self.interrupt(job)

    def interrupt(self, job: Job) -> None:
        if job.state == "running":
            job.state = "cancelling"
            if job.kind != "stubborn":
                self.end(job, "cancelled")

    def end(self, job: Job, state: State) -> None:
        self.totals[state] += 1
        if job.recurs and self.holders.get(job.task_id) is job and not self.closed:
            job.state = "pending"  # again, in an hour
            job.due = False
            job.gate = anyio.Event()
            return
        job.state = state
        for table in (self.holders, self.predecessors):
            if table.get(job.task_id) is job:
                del table[job.task_id]

    @property
    def running(self) -> int:
        return sum(job.state in ("running", "cancelling") for job in self.jobs)

    def come_to_rest(self) -> None:
        """Start the tasks that may start, in due order, until there are none."""
        while True:
            ready = [job for job in self.queue if job.task_id not in self.predecessors]
            if not ready or (self.limit is not None and self.running >= self.limit):
                return
            self.start(ready[0])

    def start(self, job: Job) -> None:
        self.queue.remove(job)
        job.state = "running"
        self.totals["started"] += 1
        match job.kind:
            case "wait" | "stubborn":
                if job.gate.is_set():
                    self.end(job, "finished")
                return
            case "fail":
                self.end(job, "failed")
                return
            case "cancel itself":
                self.displace(job.task_id, interrupt=False)
            case "cancel all":
                for task_id, holder in list(self.holders.items()):
                    self.displace(task_id, interrupt=holder is not job)
            case "follow itself" | "replace itself" if job.next is not None:
                self.displace(job.task_id, interrupt=False)
                self.hold(job.next, due=True)
            case _:
                pass
        self.end(job, "finished")


IDS = st.integers(0, 2)
# Those that stay for a while are where it becomes interesting.
KINDS = st.sampled_from(["wait", "stubborn"]) | st.sampled_from(Kind.__args__)  # type: ignore[attr-defined]
POLICIES = st.sampled_from(["keep", "replace", "follow", "error"])


class SchedulerMachine(RuleBasedStateMachine):
    """Drives a scheduler and its child, step by step, in an event loop in another thread."""

    backend = "asyncio"

    @initialize(limits=st.tuples(*[st.sampled_from([None, 1, 2])] * 2), started=st.booleans())
    def enter(self, limits: tuple[int | None, int | None], started: bool) -> None:
        self.stack = ExitStack()
        self.portal = self.stack.enter_context(start_blocking_portal(self.backend))
        root = Scheduler("root", max_running=limits[0])
        child = root.child("child", max_running=limits[1])
        if started and self.backend == "asyncio":
            self.portal.call(root.start)
        else:
            if started:
                with pytest.raises(RuntimeError, match=r"nursery\.start\(scheduler\.run\)"):
                    self.portal.call(root.start)
            self.portal.start_task(root.run)
        self.root = root
        self.worlds = [World(root, limits[0]), World(child, limits[1])]

    def step(self, function: Any, *args: Any) -> Any:
        """Call a function in the event loop, and wait until it is idle."""

        async def call() -> Any:
            result = function(*args)
            await settle(40)
            return result

        result = self.portal.call(call)
        for world in self.worlds:
            world.come_to_rest()
        return result

    @rule(
        child=st.integers(0, 1), task_id=IDS, kind=KINDS, policy=POLICIES,
        method=st.sampled_from(["now", "later", "at", "every", "after", "each"]), as_function=st.booleans(), soon=st.booleans(),
        pause=st.sampled_from([False, False, True]),
    )  # fmt: skip
    def schedule(
        self, child: int, task_id: int, kind: Kind, policy: Any, method: str, as_function: bool, soon: bool, pause: bool
    ) -> None:
        world = self.worlds[child]
        scheduler = world.scheduler
        due = soon or method == "now"

        def call() -> None:
            job = world.new_job(task_id, kind, links=2)
            job.recurs = method in ("every", "after", "each")
            holder = world.holders.get(task_id)
            work: Any = job.run
            if not as_function and not job.recurs:
                work = job.coroutine = job.run()
            expected: type[Exception] | None = None
            if world.closed:
                expected = RuntimeError
            elif holder is not None and policy == "error":
                expected = DuplicateTaskError
            try:
                match method:
                    case "now":
                        task = scheduler.schedule(task_id, work, on_conflict=policy)
                    case "later":
                        task = scheduler.schedule_later(0 if soon else HOUR, task_id, work, on_conflict=policy)
                    case "at":
                        time = datetime.now(UTC) + timedelta(hours=0 if soon else 1)
                        task = scheduler.schedule_at(time, task_id, work, on_conflict=policy)
                    case "every" | "after":
                        task = scheduler.schedule_every(
                            HOUR,
                            task_id,
                            work,
                            first=0 if soon else None,
                            measured_from="start" if method == "every" else "end",
                            on_conflict=policy,
                        )
                    case _:
                        now = datetime.now(UTC)
                        times = (now + timedelta(hours=n) for n in count(0 if soon else 1))
                        task = scheduler.schedule_at_times(times, task_id, work, on_conflict=policy)
            except (RuntimeError, DuplicateTaskError) as error:
                if type(error) is not expected:
                    raise
                return
            assert expected is None
            if holder is not None and policy == "keep":
                assert task is holder.task
                return
            job.task = task
            if holder is not None:
                world.displace(task_id, interrupt=policy == "replace")
            world.hold(job, due=due)
            if pause:
                assert task.pause() is world.pause(job)

        self.step(call)

    @rule(child=st.integers(0, 1), task_id=IDS, running=st.sampled_from(["cancel", "cancel", "leave"]))
    def cancel(self, child: int, task_id: int, running: Any) -> None:
        world = self.worlds[child]

        def call() -> None:
            held = task_id in world.holders
            assert world.scheduler.cancel(task_id, running=running) is held
            if held:
                world.displace(task_id, interrupt=running == "cancel")

        self.step(call)

    @rule(child=st.integers(0, 1), running=st.sampled_from(["cancel", "leave"]))
    def cancel_all(self, child: int, running: Any) -> None:
        world = self.worlds[child]

        def call() -> None:
            world.scheduler.cancel_all(running=running)
            for task_id in list(world.holders):
                world.displace(task_id, interrupt=running == "cancel")

        self.step(call)

    @rule(child=st.integers(0, 1), task_id=IDS)
    def pause(self, child: int, task_id: int) -> None:
        world = self.worlds[child]

        def call() -> None:
            holder = world.holders.get(task_id)
            assert world.scheduler.pause(task_id) is (holder is not None and world.pause(holder))

        self.step(call)

    @rule(child=st.integers(0, 1), task_id=IDS)
    def resume(self, child: int, task_id: int) -> None:
        world = self.worlds[child]

        def call() -> None:
            holder = world.holders.get(task_id)
            assert world.scheduler.resume(task_id) is (holder is not None and world.resume(holder))

        self.step(call)

    @rule(child=st.integers(0, 1), data=st.data(), verb=st.sampled_from(["pause", "resume", "soon", "later", "at"]))
    def call_by_handle(self, child: int, data: st.DataObject, verb: str) -> None:
        """Call a method of any handle: one that has ended, or lost its ID, is not affected."""
        world = self.worlds[child]
        job = world.draw(data)
        if job is None:
            return

        def call() -> None:
            assert job.task is not None
            match verb:
                case "pause":
                    assert job.task.pause() is world.pause(job)
                case "resume":
                    assert job.task.resume() is world.resume(job)
                case "at":
                    assert job.task.reschedule_at(datetime.now(UTC)) is world.reschedule(job, soon=True)
                case _:
                    delay = 0 if verb == "soon" else HOUR
                    assert job.task.reschedule_later(delay) is world.reschedule(job, soon=verb == "soon")

        self.step(call)

    @rule(child=st.integers(0, 1), data=st.data(), running=st.sampled_from(["cancel", "leave"]))
    def cancel_by_handle(self, child: int, data: st.DataObject, running: Any) -> None:
        world = self.worlds[child]
        job = world.draw(data)
        if job is None:
            return

        def call() -> None:
            assert job.task is not None
            job.task.cancel(running=running)
            if world.holders.get(job.task_id) is job:
                world.displace(job.task_id, interrupt=running == "cancel")
            elif running == "cancel":
                world.interrupt(job)

        self.step(call)

    @rule(child=st.integers(0, 1), task_id=IDS, soon=st.booleans(), at=st.booleans())
    def reschedule(self, child: int, task_id: int, soon: bool, at: bool) -> None:
        world = self.worlds[child]

        def call() -> None:
            holder = world.holders.get(task_id)
            movable = holder is not None and world.reschedule(holder, soon=soon)
            if at:
                time = datetime.now(UTC) + timedelta(hours=0 if soon else 1)
                assert world.scheduler.reschedule_at(time, task_id) is movable
            else:
                assert world.scheduler.reschedule_later(0 if soon else HOUR, task_id) is movable

        self.step(call)

    @rule(child=st.integers(0, 1), data=st.data())
    def finish_run(self, child: int, data: st.DataObject) -> None:
        """Let a task that waits, or is stubborn, run to its end."""
        world = self.worlds[child]
        jobs = [job for job in world.jobs if job.state in ("running", "cancelling")]
        if not jobs:
            return
        job = data.draw(st.sampled_from(jobs), label="job")

        def call() -> None:
            job.gate.set()
            world.end(job, "cancelled" if job.state == "cancelling" else "finished")

        self.step(call)

    @rule(child=st.booleans())
    def close(self, child: bool) -> None:
        """Close without a grace period; stubborn tasks hold it up until they are released."""
        worlds = self.worlds[1:] if child else self.worlds
        scheduler = worlds[0].scheduler

        async def call() -> list[ScheduledTask[Any]]:
            for world in worlds:
                for job in world.jobs:
                    job.gate.set()
            return await scheduler.close()

        unfinished = self.portal.call(call)
        expected = []
        for world in worlds:
            world.closed = True
            for job in list(world.holders.values()):
                if job.state == "pending":
                    expected.append(job)
                    world.displace(job.task_id, interrupt=False)
            for job in world.jobs:
                if job.state in ("running", "cancelling"):
                    # Released and cancelled at once: the event loop decides which it sees first.
                    assert job.task is not None
                    state: State = "cancelled" if job.task.status.name == "CANCELLED" else "finished"
                    if job.state == "running" and state == "cancelled":
                        expected.append(job)
                    world.end(job, state)
        assert {id(task) for task in unfinished} == {id(job.task) for job in expected}

    @precondition(lambda self: not any(world.holders or world.predecessors for world in self.worlds))
    @rule()
    def join(self) -> None:
        for world in self.worlds:
            self.portal.call(world.scheduler.join)

    @invariant()
    def the_model_holds(self) -> None:
        for world in getattr(self, "worlds", ()):
            scheduler = world.scheduler
            assert dict(scheduler.tasks) == {task_id: job.task for task_id, job in world.holders.items()}
            assert all((task_id in scheduler) == (task_id in world.holders) for task_id in range(3))
            for job in world.jobs:
                if job.task is not None:
                    assert job.task.status.name.lower() == job.state, (job.kind, job.number)
                    if world.holders.get(job.task_id) is job:
                        assert job.task.paused is job.paused
                if job.coroutine is not None and (
                    job.task is None or job.state not in ("pending", "running", "cancelling")
                ):
                    assert is_closed(job.coroutine)
            statistics = self.portal.call(scheduler.statistics)
            pending = [job for job in world.holders.values() if job.state == "pending"]
            assert statistics.pending == len(pending)
            assert statistics.running == world.running == sum(world.active.values())
            assert (statistics.next_due is None) == all(job.paused for job in pending)
            for total in ("started", "finished", "failed", "cancelled"):
                assert getattr(statistics, total) == world.totals[total], total

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        worlds = self.worlds

        async def leave() -> None:
            for world in worlds:
                for job in world.jobs:
                    job.gate.set()
            await self.root.close()

        self.portal.call(leave)
        self.stack.close()
        for world in worlds:
            assert not world.scheduler.tasks
            assert not +world.active
            assert all(is_closed(job.coroutine) for job in world.jobs if job.coroutine is not None)


class TrioMachine(SchedulerMachine):
    """The same on trio."""

    backend = "trio"


MACHINE_SETTINGS = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

TestOnAsyncio = SchedulerMachine.TestCase
TestOnAsyncio.settings = MACHINE_SETTINGS
TestOnTrio = TrioMachine.TestCase
TestOnTrio.settings = MACHINE_SETTINGS

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.slow]
