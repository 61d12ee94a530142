"""A simulation: random lives of a scheduler and its child in virtual time, over months, each checked against a model.

Hypothesis draws a script: which tasks are scheduled, rescheduled and cancelled, what they do, when the wall clock is set, and when the
machine sleeps. It is played in one run of an event loop whose time is virtual, and everything that happens is written
down. Then the model reads the record, and finds fault:

- Nothing is early: by elapsed time for delays, by the wall clock for times.
- Nothing is late: time does not move on while a task that is due has neither a predecessor task nor a lack of slots before it. So
  every start has its exact time. Only when the wall clock was set forward in silence, there is the
  re-check interval to find out.
- The order is kept: due order, ties in the order of the calls.
- Nothing is lost: every task ends once, as its coroutine did; every coroutine is closed; the statistics add up.
- One ID runs once at a time, and no more tasks run than may.
- What a task does to itself leaves it alone if it comes from inside: from its native task, or a task group that was opened in it.
- `close` returns what it has dropped, what was scheduled in the meantime, and what was cancelled, in this order.

All times are multiples of 5 microseconds and are compared as integers, so that all of this is exact.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import anyio
import hypothesis.strategies as st
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, example, given, settings

from anysched import DuplicateTaskError, ScheduledTask, Scheduler
from anysched.testing import VirtualClock
from support import is_closed, timeline_of

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Policy = Literal["keep", "replace", "follow", "error"]


def micros(time: datetime) -> int:
    """A time in microseconds of UTC since 1970; naive is UTC."""
    aware = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


# The script


@dataclass(frozen=True)
class Plan:
    """A script for a task: sleep, act, sleep, end. When cancelled, it may take some time, or ignore it."""

    before: int = 0
    act: Literal["nothing", "cancel itself", "cancel all", "continue", "reschedule", "schedule"] = "nothing"
    after: int = 0
    fails: bool = False
    stubborn: int = 0
    swallows: bool = False
    via: Literal["itself", "inner", "outer"] = "itself"
    """Where it acts: in its own native task, in a task group that it opens, or in one that was opened around the scheduler."""
    links: int = 0
    """How many times it schedules itself again."""


How = Literal["now", "later", "at", "naive", "local"]
OTHER: dict[How, How] = {"later": "at", "at": "later"}
"""The other call for the same time."""


@dataclass(frozen=True)
class When:
    """When to start: now, after a delay, or at a wall-clock time."""

    how: How
    delay: int = 0
    zone: str = "UTC"
    """For "local": the delay in whole days, at a time of the day by the clocks there."""
    minute: int = 0
    fold: int = 0

    def time(self, now: datetime) -> datetime:
        """Return the time for which to schedule."""
        if self.how == "local":
            local = now.astimezone(ZoneInfo(self.zone)) + timedelta(days=self.delay // DAY)
            hour, minute = divmod(self.minute, 60)
            return local.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=self.fold)
        time = now + timedelta(microseconds=self.delay)
        return time.replace(tzinfo=None) if self.how == "naive" else time.astimezone(ZoneInfo(self.zone))


@dataclass(frozen=True)
class Step:
    """A step of the script, after a pause. Without a pause, nothing can happen after the previous step."""

    pause: int | None
    do: Literal["schedule", "reschedule", "cancel", "cancel all", "cancel handle", "set clock", "suspend", "hold up"]
    member: int = 0
    task_id: int = 0
    when: When = When("now")
    policy: Policy = "keep"
    plan: Plan = Plan()
    as_function: bool = False
    copies: int = 1
    """How many tasks to schedule, with consecutive IDs, on both clocks in turn."""
    delta: int = 0
    notify: bool = True


@dataclass(frozen=True)
class Script:
    """The life of a scheduler."""

    start: datetime
    limits: tuple[int | None, int | None]
    polls: int | None
    """The interval at which the scheduler reads the wall clock; `None` if it is notified, at once or after 30 seconds."""
    autojump: bool
    steps: list[Step]
    end: Literal["join", "close", "leave"]
    grace: int


# A few of each size, so that there are ties, and so that one becomes due while another runs.
DURATIONS = st.builds(
    int.__mul__,
    st.sampled_from([5, 250, 15_625, SECOND, 5 * SECOND, 60 * SECOND, HOUR, DAY, 7 * DAY]),
    st.integers(1, 4),
)
SHORT = st.sampled_from([0, 0, 5, 15_625, SECOND, 10 * SECOND, 90 * SECOND, HOUR])
PLANS = st.builds(
    Plan,
    before=SHORT,
    act=st.sampled_from(
        ["nothing", "continue", "continue", "continue", "reschedule", "schedule", "cancel itself", "cancel all"]
    ),
    after=SHORT,
    fails=st.sampled_from([False, False, True]),
    stubborn=SHORT,
    swallows=st.booleans(),
    via=st.sampled_from(["itself", "itself", "inner", "outer"]),
    links=st.sampled_from([1, 3, 10, 40]),
)
ZONES = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
WHENS = st.one_of(
    st.just(When("now")),
    st.builds(When, st.just("later"), st.just(0) | st.just(-SECOND) | DURATIONS),
    st.builds(When, st.sampled_from(["at", "naive"]), st.just(0) | st.just(-DAY) | DURATIONS, ZONES),
    # Around the hours that are left out, or come twice, when the clocks change.
    st.builds(
        When,
        st.just("local"),
        st.sampled_from([0, DAY, 2 * DAY, 5 * DAY, 30 * DAY]),
        ZONES,
        st.sampled_from([0, 90, 120, 150, 180, 720]),
        st.integers(0, 1),
    ),
)
PLACES: dict[str, Any] = {
    "pause": st.none() | st.just(0) | DURATIONS,
    "member": st.integers(0, 1),
    "task_id": st.integers(0, 5),
}
SCHEDULES = st.builds(
    Step,
    do=st.just("schedule"),
    when=WHENS,
    policy=st.sampled_from(["keep", "replace", "follow", "error"]),
    plan=PLANS,
    as_function=st.booleans(),
    copies=st.sampled_from([1, 1, 1, 3, 6]),
    **PLACES,
)
STEPS = st.one_of(
    SCHEDULES,
    SCHEDULES,
    SCHEDULES,
    st.builds(Step, do=st.just("reschedule"), when=WHENS, **PLACES),
    st.builds(Step, do=st.sampled_from(["cancel", "cancel", "cancel", "cancel handle", "cancel all"]), **PLACES),
    st.builds(
        Step,
        do=st.just("set clock"),
        delta=st.sampled_from([-HOUR, -5 * SECOND, -5, 5, 15 * SECOND, HOUR, DAY]),
        notify=st.booleans(),
        pause=DURATIONS,
    ),
    st.builds(Step, do=st.just("suspend"), delta=DURATIONS, notify=st.booleans(), pause=DURATIONS),
    st.builds(Step, do=st.just("hold up"), delta=DURATIONS, pause=DURATIONS),
)
LIMITS = st.sampled_from([None, None, 1, 2])
SCRIPTS = st.builds(
    Script,
    start=st.sampled_from([datetime(2025, 3, 20, tzinfo=UTC), datetime(2025, 10, 1, 12, 30, tzinfo=UTC)]),
    limits=st.tuples(LIMITS, LIMITS),
    polls=st.sampled_from([None, None, 3 * HOUR]),
    autojump=st.booleans(),
    steps=st.lists(STEPS, min_size=20, max_size=60),
    end=st.sampled_from(["join", "join", "join", "close", "leave"]),
    grace=SHORT,
)


# The record


class Job:
    """A scheduling call and the task that resulted from it, if any."""

    def __init__(self, play: Play, member: int, task_id: int, plan: Plan) -> None:
        self.play = play
        self.member = member
        self.task_id = task_id
        self.plan = plan
        self.task: ScheduledTask[None] | None = None
        self.coroutine: Coroutine[Any, Any, None] | None = None
        self.number = len(play.jobs)
        play.jobs.append(self)

    async def run(self) -> None:
        note, plan = self.play.note, self.plan
        note("start", self)
        how = "failed"
        try:
            try:
                await sleep(plan.before)
                await self.act_somewhere()
                await sleep(plan.after)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await sleep(plan.stubborn)
                if not plan.swallows:
                    how = "cancelled"
                    raise
            if plan.fails:
                raise ValueError(self.number)
            how = "finished"
        finally:
            note("end", self, how)

    async def act_somewhere(self) -> None:
        """Act as the plan says: inside of the run, or outside of it, in the same context."""
        match self.plan.via:
            case "itself":
                self.act(self)
            case "inner":
                async with anyio.create_task_group() as group:
                    group.start_soon(self.act_in_task, self, anyio.Event())
            case "outer":
                done = anyio.Event()
                self.play.outer.start_soon(self.act_in_task, None, done)
                await done.wait()

    async def act_in_task(self, caller: Job | None, done: anyio.Event) -> None:
        self.act(caller)
        done.set()

    def act(self, caller: Job | None) -> None:
        """Act; ``caller`` is the task itself if that is inside of it."""
        play, member, task_id = self.play, self.member, self.task_id
        beat = When("at" if self.number % 2 else "later", [DAY, 5, 7 * DAY, HOUR, 20 * SECOND][self.number % 5])
        match self.plan.act:
            case "cancel itself" if play.schedulers[member].tasks.get(task_id) is self.task or caller is not None:
                play.cancel(member, task_id, caller)
            case "cancel all":
                play.cancel_all(member, caller)
            case "continue" if self.plan.links:
                plan = replace(self.plan, links=self.plan.links - 1)
                policy: Policy = "follow" if self.number % 3 else "replace"
                play.schedule(member, task_id, beat, policy, plan, True, caller, self)
            case "reschedule":
                play.reschedule(member, (task_id + 1) % 6, beat)
            case "schedule":
                play.schedule(1 - member, task_id, beat, "keep", Plan(after=5), False, caller, self)
            case _:
                pass


async def sleep(duration: int) -> None:
    if duration:
        await anyio.sleep(duration / SECOND)
    else:
        await checkpoint()


class Note(NamedTuple):
    """An event and its time on both clocks."""

    mono: int
    wall: int
    what: str
    job: Job | None
    details: tuple[Any, ...]


class Play:
    """Runs a script and records what happens."""

    def __init__(self, script: Script, clock: VirtualClock) -> None:
        self.script = script
        self.clock = clock
        self.jobs: list[Job] = []
        self.record: list[Note] = []
        root = Scheduler("simulation", max_running=script.limits[0])
        self.schedulers = root, root.child("child", max_running=script.limits[1])

    def note(self, what: str, job: Job | None = None, *details: Any) -> None:
        mono, wall = round(self.clock.monotonic() * SECOND), self.clock.time_ns() // 1000
        self.record.append(Note(mono, wall, what, job, details))

    def due(self, when: When) -> tuple[str, int, float]:
        """The model's calculation of a due time: the clock, the time, and its rounding as a float."""
        mono, wall = round(self.clock.monotonic() * SECOND), self.clock.time_ns() // 1000
        if when.how in ("now", "later"):
            delay = max(when.delay, 0)
            return "mono", mono + delay, self.clock.monotonic() + delay / SECOND
        due = micros(when.time(self.clock.now()))
        return ("wall", due, 0.0) if due > wall else ("mono", mono, self.clock.monotonic())

    def schedule(
        self,
        member: int,
        task_id: int,
        when: When,
        policy: Policy,
        plan: Plan,
        as_function: bool,
        caller: Job | None = None,
        context: Job | None = None,
    ) -> None:
        """Schedule a task: inside the run of ``caller``, and in the context of ``context``."""
        scheduler = self.schedulers[member]
        job = Job(self, member, task_id, plan)
        work: Any = job.run
        if not as_function:
            work = job.coroutine = job.run()
        due = self.due(when)
        holder = scheduler.tasks.get(task_id)
        try:
            match when.how:
                case "now":
                    task = scheduler.schedule(task_id, work, on_conflict=policy)
                case "later":
                    task = scheduler.schedule_later(when.delay / SECOND, task_id, work, on_conflict=policy)
                case _:
                    task = scheduler.schedule_at(when.time(self.clock.now()), task_id, work, on_conflict=policy)
        except DuplicateTaskError:
            came_of_it = "duplicate"
        except RuntimeError:
            came_of_it = "refused"
        else:
            came_of_it = "kept" if task is holder else "new"
            if task is not holder:
                job.task = task
        self.note("schedule", job, due, policy, caller, context, came_of_it)

    def reschedule(self, member: int, task_id: int, when: When) -> None:
        scheduler = self.schedulers[member]
        due = self.due(when)
        if when.how in ("now", "later"):
            moved = scheduler.reschedule_later(when.delay / SECOND, task_id)
        else:
            moved = scheduler.reschedule_at(when.time(self.clock.now()), task_id)
        self.note("reschedule", None, member, task_id, due, moved)

    def cancel(self, member: int, task_id: int, caller: Job | None) -> None:
        self.note("cancel", None, member, task_id, caller, self.schedulers[member].cancel(task_id))

    def cancel_all(self, member: int, caller: Job | None) -> None:
        self.schedulers[member].cancel_all()
        self.note("cancel all", None, member, caller)

    async def perform(self, step: Step) -> None:
        clock = self.clock
        if step.pause is not None:
            await clock.advance(step.pause / SECOND)
            self.note("rest", None, [{task_id: task.status.name for task_id, task in scheduler.tasks.items()}
                                     for scheduler in self.schedulers])  # fmt: skip
        match step.do:
            case "schedule":
                other = replace(step.when, how=OTHER.get(step.when.how, step.when.how))
                for copy in range(step.copies):
                    when = other if copy % 2 else step.when
                    task_id = (step.task_id + copy) % 6
                    self.schedule(step.member, task_id, when, step.policy, step.plan, step.as_function)
            case "reschedule":
                self.reschedule(step.member, step.task_id, step.when)
            case "cancel":
                self.cancel(step.member, step.task_id, None)
            case "cancel all":
                self.cancel_all(step.member, None)
            case "cancel handle":
                for job in self.jobs[-3:]:
                    if job.task is not None:
                        job.task.cancel()
                        self.note("cancel handle", job)
            case "set clock" | "suspend":
                move = clock.suspend if step.do == "suspend" else clock.step_wall
                move(timedelta(microseconds=step.delta), notify=step.notify)
                self.note("step", None, step.delta, step.notify)
                await clock.settle()
            case "hold up":
                # Time passes without any task being able to run, as if one were computing for this long.
                timeline_of(clock).jump(clock.monotonic() + step.delta / SECOND)
                self.note("held up")
                await clock.settle()

    async def main(self) -> None:
        root, child = self.schedulers
        # This is long after the last task is due, so that a lost task does not make the test wait forever.
        with anyio.fail_after(50 * 365 * 86_400):
            await self.live(root, child)
        self.note("left")

    async def live(self, root: Scheduler, child: Scheduler) -> None:
        script = self.script
        async with anyio.create_task_group() as self.outer, root:
            for step in script.steps:
                await self.perform(step)
            await self.clock.settle()
            if script.end == "join":
                self.clock.autojump = True
                # The tasks of one may schedule more on the other.
                while any(scheduler.tasks or scheduler.statistics().running for scheduler in self.schedulers):
                    await child.join()
                    await root.join()
            elif script.end == "close":
                self.clock.autojump = True
                self.note("closing")
                unfinished = await root.close(script.grace / SECOND)
                self.note("closed", None, unfinished)
            else:
                self.clock.autojump = True
                self.note("closing")


# The model


@dataclass(eq=False)
class Task:
    """The model of a task."""

    job: Job
    clock: str
    due: int
    number: int
    state: Literal["pending", "running", "over"] = "pending"
    status: str = ""
    may: bool = False
    """Whether it was due at some moment, so that the scheduler may have seen it."""
    rank: tuple[int, int, int] | None = None
    """When the scheduler must have seen that it is due: the time, the number of the note, and the due time."""
    ready: int = -1
    """Since when it waits only for the scheduler or a slot: twice the number of the note, plus one after it."""
    unordered: bool = False
    """Whether it is uncertain when the scheduler saw it."""
    held_up: bool = False
    """Whether the event loop was held up while it ran, so that it took longer than planned."""
    started: int = 0
    cancelled: int | None = None

    @property
    def latest_end(self) -> int:
        if self.cancelled is not None:
            return self.cancelled + self.job.plan.stubborn
        return self.started + self.job.plan.before + self.job.plan.after


@dataclass
class Member:
    """The model of a scheduler."""

    limit: int | None
    holders: dict[int, Task] = field(default_factory=dict)
    predecessors: dict[int, Task] = field(default_factory=dict)
    running: set[Task] = field(default_factory=set)
    totals: Counter[str] = field(default_factory=Counter)


class Model:
    """Checks a record."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.members = [Member(limit) for limit in play.script.limits]
        self.tasks: dict[Job, Task] = {}
        self.now = 0
        self.recheck = play.script.polls or 30 * SECOND
        self.offset = micros(play.script.start)
        self.position = 0
        self.calls = 0
        self.stale: int | None = None
        """Since when the wall clock is ahead of the scheduler's last possible reading."""
        self.closed = False
        # Where sums of floats that should be equal are not, the order may be theirs.
        sums: defaultdict[int, set[float]] = defaultdict(set)
        for note in play.record:
            if note.what in ("schedule", "reschedule"):
                clock, due, exact = note.details[0 if note.what == "schedule" else 2]
                if clock == "mono":
                    sums[due].add(exact)
        self.blurred = {due for due, exacts in sums.items() if len(exacts) > 1}

    def check(self) -> None:
        for position, note in enumerate(self.play.record):
            self.position = position
            assert note.mono >= self.now
            if note.what == "held up":
                self.be_held_up(note.mono)
            self.pass_time(note.mono)
            if note.what == "step":
                self.offset += note.details[0]
            assert note.wall == note.mono + self.offset
            getattr(self, "on_" + note.what.replace(" ", "_"))(note.job, *note.details)
            self.see_due()

    # Time

    def moment(self, task: Task) -> int:
        """Return the exact moment at which a task is due, by elapsed time."""
        return task.due if task.clock == "mono" else task.due - self.offset

    def pending(self) -> list[Task]:
        return [task for member in self.members for task in member.holders.values() if task.state == "pending"]

    def pass_time(self, until: int) -> None:
        if self.stale is not None and self.stale + self.recheck <= until:
            found = self.stale + self.recheck
            self.pass_time_exactly(found)
            self.stale = None
            self.see_due(in_time=True)
        self.pass_time_exactly(until)
        self.see_due(in_time=True)

    def pass_time_exactly(self, until: int) -> None:
        if until == self.now:
            return
        for member in self.members:
            for task in member.running:
                assert task.held_up or task.latest_end >= until, f"{task} does not end"
        for task in self.pending():
            moment = self.moment(task)
            if moment < until:
                task.may = True
                if task.clock == "wall" and self.stale is not None:
                    task.unordered = True  # it may be seen at once, or by the re-check
                elif task.rank is None:
                    task.rank = max(moment, self.now), 0, moment
            if task.rank is not None and not self.is_blocked(task):
                raise AssertionError(f"{task} is late: it is not started before {until}")
        self.now = until

    def be_held_up(self, until: int) -> None:
        """Let time pass without running anything; tasks that become due in it are noticed afterwards."""
        self.now = until
        if self.stale is not None and self.stale + self.recheck <= until:
            self.stale = None
        for member in self.members:
            for task in member.running:
                task.held_up = True

    def on_held_up(self, _: None) -> None: ...

    def see_due(self, *, in_time: bool = False) -> None:
        """Note the tasks that are due or may start now, after time has passed or something happened."""
        for task in self.pending():
            moment = self.moment(task)
            if moment <= self.now:
                task.may = True
                if task.clock == "wall" and self.stale is not None:
                    task.unordered = True
                elif task.rank is None:
                    task.rank = self.now, 0 if in_time else self.position, moment
            if task.rank is not None and task.ready < 0 and not self.has_predecessor(task):
                # By time alone, it is ready before the event of the note; by the order of events, after it.
                task.ready = 2 * self.position + (not in_time)

    def has_predecessor(self, task: Task) -> bool:
        return task.job.task_id in self.members[task.job.member].predecessors

    def is_blocked(self, task: Task) -> bool:
        member = self.members[task.job.member]
        return self.has_predecessor(task) or (member.limit is not None and len(member.running) >= member.limit)

    # What happens

    def on_rest(self, _: None, held: list[dict[int, str]]) -> None:
        """The table shows what it should."""
        expected = [
            {task_id: task.state.upper() for task_id, task in member.holders.items()} for member in self.members
        ]
        assert held == expected

    def on_step(self, _: None, delta: int, notify: bool) -> None:
        if notify:
            self.stale = None
        elif delta > 0:
            self.stale = self.now  # the clock is only read again while a task waits for it: the last step counts

    def on_schedule(
        self,
        job: Job,
        due: tuple[str, int, float],
        policy: Policy,
        caller: Job | None,
        context: Job | None,
        came_of_it: str,
    ) -> None:
        member = self.members[job.member]
        holder = member.holders.get(job.task_id)
        expected = "new"
        runs = context is not None and self.tasks[context].state == "running"
        if self.closed and not (runs and self.play.script.end == "close"):
            expected = "refused"
        elif holder is not None:
            expected = {"keep": "kept", "error": "duplicate"}.get(policy, "new")
        assert came_of_it == expected
        if came_of_it != "new":
            return
        if self.closed:  # what a running task schedules is dropped, and `close` returns it
            assert job.task is not None
            self.dropped.append(job.task)
            self.tasks[job] = Task(job, due[0], due[1], self.calls, "over", "cancelled")
            member.totals["cancelled"] += 1
            return
        if holder is not None:
            self.displace(holder, interrupt=policy == "replace" and holder.job is not caller)
        self.calls += 1
        task = self.tasks[job] = member.holders[job.task_id] = Task(job, due[0], due[1], self.calls)
        task.unordered = due[1] in self.blurred

    def on_reschedule(self, _: None, member: int, task_id: int, due: tuple[str, int, float], moved: bool) -> None:
        task = self.members[member].holders.get(task_id)
        movable = task is not None and task.state == "pending" and not self.closed
        assert moved is movable
        if task is not None and movable:
            self.calls += 1
            task.clock, task.due, task.number = due[0], due[1], self.calls
            task.may, task.rank, task.ready, task.unordered = False, None, -1, due[1] in self.blurred

    def on_cancel(self, _: None, member: int, task_id: int, caller: Job | None, found: bool) -> None:
        task = self.members[member].holders.get(task_id)
        assert found is (task is not None)
        if task is not None:
            self.displace(task, interrupt=task.job is not caller)

    def on_cancel_all(self, _: None, member: int, caller: Job | None) -> None:
        for task in list(self.members[member].holders.values()):
            self.displace(task, interrupt=task.job is not caller)

    def on_cancel_handle(self, job: Job) -> None:
        task = self.tasks[job]
        if self.members[job.member].holders.get(job.task_id) is task:
            self.displace(task, interrupt=True)
        else:
            self.interrupt(task)

    def displace(self, task: Task, *, interrupt: bool) -> None:
        member = self.members[task.job.member]
        del member.holders[task.job.task_id]
        if task.state == "pending":
            self.end(task, "cancelled")
            return
        member.predecessors[task.job.task_id] = task
        if interrupt:
            self.interrupt(task)

    def interrupt(self, task: Task) -> None:
        if task.state == "running" and task.cancelled is None:
            task.cancelled = self.now

    def on_start(self, job: Job) -> None:
        member, task = self.members[job.member], self.tasks[job]
        assert not self.closed
        assert task.state == "pending", f"{task} starts"
        assert member.holders.get(job.task_id) is task
        assert not self.has_predecessor(task), f"{job.task_id} runs twice"
        assert member.limit is None or len(member.running) < member.limit, f"too many run with {task}"
        assert task.may, f"{task} is early, at {self.now}"
        for other in self.pending():
            self.check_order(task, other)
        task.state = "running"
        task.started = self.now
        member.running.add(task)
        member.totals["started"] += 1

    def check_order(self, task: Task, other: Task) -> None:
        """No other task that waited as long as this one comes before it in the order."""
        if task.unordered or other.unordered or other.rank is None or task.rank is None:
            return
        if not 0 <= other.ready <= task.ready:
            return  # this one may have been handed to the event loop before
        if other.job.member != task.job.member and self.members[other.job.member].limit is not None:
            return  # it waits for a slot, or did
        assert (*other.rank, other.number) >= (*task.rank, task.number), f"{task} starts before {other}"

    def on_end(self, job: Job, how: str) -> None:
        task, plan = self.tasks[job], job.plan
        assert task.state == "running"
        end = task.started + plan.before + plan.after
        ends = {end} if task.cancelled is None else {task.cancelled + plan.stubborn, min(end, task.cancelled)}
        assert task.held_up or self.now in ends, f"{task} ends at {self.now}"
        if how == "cancelled":
            assert task.cancelled is not None
        self.end(task, how)

    def end(self, task: Task, status: str) -> None:
        member = self.members[task.job.member]
        task.state, task.status = "over", status
        member.totals[status] += 1
        member.running.discard(task)
        for table in (member.holders, member.predecessors):
            if table.get(task.job.task_id) is task:
                del table[task.job.task_id]

    # The end

    def on_closing(self, _: None) -> None:
        self.closed = True
        self.dropped = [task.job.task for task in self.pending()]
        for task in self.pending():
            self.displace(task, interrupt=False)
        grace = self.play.script.grace if self.play.script.end == "close" else 0
        for member in self.members:
            for task in member.running:
                # One that would end just then may end before.
                if task.cancelled is None and task.latest_end >= self.now + grace:
                    task.cancelled = self.now + grace

    def on_closed(self, _: None, unfinished: list[ScheduledTask[None]]) -> None:
        """What `close` returns: what was dropped, in the order of the calls; then what was cancelled."""
        assert unfinished[: len(self.dropped)] == self.dropped
        others = unfinished[len(self.dropped) :]
        assert all(task.run_count and task.status.name != "FINISHED" for task in others)
        assert len(set(unfinished)) == len(unfinished)

    def on_left(self, _: None) -> None:
        for member, scheduler in zip(self.members, self.play.schedulers, strict=True):
            assert not member.holders, "a task is lost"
            assert not member.predecessors
            assert not member.running
            statistics = scheduler.statistics()
            assert (statistics.pending, statistics.running) == (0, 0)
            for total in ("started", "finished", "failed", "cancelled"):
                assert getattr(statistics, total) == member.totals[total], total
        for job in self.play.jobs:
            assert job.coroutine is None or is_closed(job.coroutine)
            assert (job.task is None) == (job not in self.tasks)
            if job.task is not None:
                assert job.task.status.name.lower() == self.tasks[job].status


class Failures(logging.Handler):
    """Collects the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.logged: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)
        self.logged.append(record.exc_info[1].args[0])


def play(script: Script, backend: Literal["asyncio", "trio"], simulated: Counter[str]) -> None:
    """Run a script and check the record."""
    options: dict[str, Any] = {"recheck_interval": script.polls / SECOND} if script.polls else {}
    clock = VirtualClock(script.start, autojump=script.autojump, busy_limit=3000, **options)
    name, backend_options = clock.backend(backend)
    failures = Failures()
    logger = logging.getLogger("anysched.simulation")
    logger.addHandler(failures)
    logger.propagate = False
    try:
        scene = Play(script, clock)
        anyio.run(scene.main, backend=name, backend_options=backend_options)
    finally:
        logger.removeHandler(failures)
        logger.propagate = True
    model = Model(scene)
    model.check()
    failed = [job.number for job, task in model.tasks.items() if task.status == "failed"]
    assert sorted(failures.logged) == failed
    simulated["seconds"] += model.now // SECOND
    simulated["starts"] += sum(member.totals["started"] for member in model.members)


ONCE = Step(None, "schedule", plan=Plan(links=1))
# On trio, a task of which the predecessor ends in the same instant may be handed to the event loop before or after it.
END_IN_THE_INSTANT = [
    *[ONCE] * 13,
    *[Step(None, "reschedule")] * 6,
    Step(0, "reschedule"),
    replace(ONCE, plan=Plan(act="continue", after=90 * SECOND, links=3), copies=6),
]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@example(script=Script(datetime(2025, 3, 20, tzinfo=UTC), (None, None), None, False, END_IN_THE_INSTANT, "join", 0))
@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=SCRIPTS)
def test_a_life_of_months_goes_by_the_model(
    simulated: Counter[str], backend: Literal["asyncio", "trio"], script: Script
) -> None:
    play(script, backend, simulated)
