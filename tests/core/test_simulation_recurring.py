"""A simulation of recurring tasks: random scripts in virtual time, with clocks that are set, each checked against a model.

Hypothesis draws what recurs (a period from the start or from the end of a run, a list of times, a function of now), the actions on it,
and when the wall clock is set, ahead and back, announced or not. Every run is recorded, with the due time that it says it serves. The
model reads the record:

- Of a period and of a list, it knows each due time exactly: no run is early, and time does not move on while one that is due could
  start. A clock that was set silently may be found out by the re-check.
- Of a function of now it knows less, and that is the promise: no time is served twice, nothing is early, and no time that the wall
  clock reaches for the first time passes without a run.

All times are multiples of 5 microseconds. They are compared as integers.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal, NamedTuple

import anyio
import hypothesis.strategies as st
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings

from anysched import Scheduler, current_run
from anysched._core.backends.current import current_backend
from anysched.testing import VirtualClock
from support import timeline_of

MICROSECOND = timedelta(microseconds=1)
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 3600 * SECOND
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2025, 3, 20, tzinfo=UTC)
RECHECK = 30 * SECOND


def micros(time: datetime) -> int:
    """A time in microseconds of UTC since 1970."""
    return (time - EPOCH) // MICROSECOND


# The script


@dataclass(frozen=True)
class Plan:
    """What recurs."""

    kind: Literal["start", "end", "times", "function"]
    period: int
    missed: Literal["latest", "all", "skip"]
    durations: tuple[int, ...]
    """How long the runs take, in turn."""
    first: int | None = None
    """After how long the first run is due, for a period; or how long ago the first time is, for a list."""
    fails: bool = False


@dataclass(frozen=True)
class Step:
    """An action after a pause, and its task."""

    pause: int
    do: Literal["nothing", "set clock", "suspend", "hold up", "reschedule", "pause", "resume", "cancel", "again"] = (
        "nothing"
    )
    job: int = 0
    delta: int = 0
    notify: bool = True


@dataclass(frozen=True)
class Script:
    """A few recurring tasks, and what happens to them."""

    plans: tuple[Plan, ...]
    limit: int | None
    steps: tuple[Step, ...]


PERIODS = st.sampled_from([7 * SECOND, MINUTE, 90 * SECOND, HOUR])
DURATIONS = st.sampled_from([0, 0, 5, SECOND, 20 * SECOND, 100 * SECOND, 2 * HOUR])
PLANS = st.builds(
    Plan,
    kind=st.sampled_from(["start", "end", "times", "function", "function"]),
    period=PERIODS,
    missed=st.sampled_from(["latest", "latest", "all", "skip"]),
    durations=st.lists(DURATIONS, min_size=1, max_size=3).map(tuple),
    first=st.sampled_from([None, 0, 5 * SECOND, 150 * SECOND]),
    fails=st.booleans(),
)
PAUSES = st.sampled_from([0, 5, 15 * SECOND, 29 * SECOND, 45 * SECOND, 100 * SECOND, HOUR // 2])
WHICH = st.integers(0, 2)
DELTAS = [5, SECOND // 2, 15 * SECOND, 61 * SECOND, 5 * MINUTE, HOUR]
STEPS = st.one_of(
    st.builds(Step, PAUSES),
    st.builds(
        Step,
        PAUSES,
        st.just("set clock"),
        delta=st.sampled_from([*DELTAS, *(-delta for delta in DELTAS)]),
        notify=st.booleans(),
    ),
    st.builds(Step, PAUSES, st.just("suspend"), delta=st.sampled_from(DELTAS), notify=st.booleans()),
    st.builds(Step, PAUSES, st.just("hold up"), delta=st.sampled_from(DELTAS)),
    st.builds(Step, PAUSES, st.just("reschedule"), WHICH, st.sampled_from([0, 5, 10 * SECOND, 70 * SECOND, HOUR])),
    st.builds(Step, PAUSES, st.sampled_from(["pause", "resume", "resume", "cancel", "again"]), WHICH),
)
SCRIPTS = st.builds(
    Script,
    plans=st.lists(PLANS, min_size=1, max_size=3).map(tuple),
    limit=st.sampled_from([None, None, 1, 2]),
    steps=st.lists(STEPS, min_size=5, max_size=25).map(tuple),
)


# The record


class Note(NamedTuple):
    """What happened, and when, by both clocks."""

    mono: int
    wall: int
    what: str
    job: int
    details: tuple[Any, ...]


class Play:
    """Plays a script, and writes down what happens."""

    def __init__(self, script: Script, clock: VirtualClock) -> None:
        self.script = script
        self.clock = clock
        self.record: list[Note] = []
        self.runs: Counter[int] = Counter()

    def note(self, what: str, job: int = 0, *details: Any) -> None:
        mono, wall = round(self.clock.monotonic() * SECOND), self.clock.time_ns() // 1000
        self.record.append(Note(mono, wall, what, job, details))

    async def work(self, job: int, plan: Plan) -> None:
        run = current_run()
        self.note("start", job, micros(run.due))
        duration = plan.durations[self.runs[job] % len(plan.durations)]
        self.runs[job] += 1
        how = "cancelled"
        try:
            await (anyio.sleep(duration / SECOND) if duration else checkpoint())
            how = "ended"
        finally:
            self.note("end", job, how)
        if plan.fails:
            raise ValueError

    def schedule(self, scheduler: Scheduler, job: int) -> None:
        plan = self.script.plans[job]
        options: dict[str, Any] = {
            "missed": plan.missed,
            "on_conflict": "replace",
            "suppressed_exceptions": (ValueError,),
        }
        if plan.kind in ("start", "end"):
            first = None if plan.first is None else plan.first / SECOND
            options |= {"first": first, "measured_from": plan.kind}
            scheduler.schedule_every(plan.period / SECOND, job, self.work, job, plan, **options)
        else:
            times: Any = Multiples(plan.period)
            if plan.kind == "times":
                times = times(self.clock.now() - timedelta(microseconds=plan.first or 0))
            scheduler.schedule_at_times(times, job, self.work, job, plan, **options)
        self.note("schedule", job)

    async def main(self) -> None:
        clock = self.clock
        async with Scheduler("simulation", max_running=self.script.limit) as scheduler:
            for job in range(len(self.script.plans)):
                self.schedule(scheduler, job)
            for step in self.script.steps:
                await clock.advance(step.pause / SECOND)
                self.rest(scheduler)
                job = step.job % len(self.script.plans)
                match step.do:
                    case "set clock" | "suspend":
                        move = clock.suspend if step.do == "suspend" else clock.step_wall
                        move(timedelta(microseconds=step.delta), notify=step.notify)
                        self.note("step", 0, step.delta, step.notify)
                    case "hold up":
                        self.hold_up(step.delta / SECOND)
                        self.note("held up")
                    case "reschedule":
                        self.note("reschedule", job, step.delta, scheduler.reschedule_later(step.delta / SECOND, job))
                    case "pause" | "resume":
                        getattr(self, "_" + step.do)(scheduler, job)
                    case "cancel":
                        if job in scheduler:
                            scheduler.cancel(job)
                            self.note("cancel", job)
                    case "again":
                        self.schedule(scheduler, job)
                    case _:
                        pass
                await clock.settle()
                self.rest(scheduler)
            self.note("leave")

    def rest(self, scheduler: Scheduler) -> None:
        self.note("rest", 0, {task_id: task.status.name for task_id, task in scheduler.tasks.items()})

    def hold_up(self, seconds: float) -> None:
        """Let time pass, in which no task can run."""
        timeline_of(self.clock).jump(self.clock.monotonic() + seconds)
        if current_backend().name == "asyncio":
            # The event loop does so when it is idle, which it was not.
            vars(type(asyncio.get_running_loop()))["_update_clock_resolution"](asyncio.get_running_loop())

    def _pause(self, scheduler: Scheduler, job: int) -> None:
        if scheduler.pause(job):
            self.note("pause", job)

    def _resume(self, scheduler: Scheduler, job: int) -> None:
        if scheduler.resume(job):
            self.note("resume", job)


@dataclass(frozen=True)
class Multiples:
    """A function of now: the multiples of a period since 1970."""

    period: int

    def __call__(self, now: datetime) -> Iterator[datetime]:
        number = micros(now) // self.period
        while True:
            number += 1
            yield EPOCH + number * self.period * MICROSECOND


# The model


@dataclass
class Now:
    """Both clocks."""

    mono: int
    wall: int


class Recurrence(ABC):
    """What the model knows of a recurring task."""

    def __init__(self, plan: Plan, now: Now) -> None:
        self.plan = plan
        self.running = False
        self.over = False
        self.paused = False
        self.place = 0
        """The number of the last change of its due time. Tasks that are due at the same time start in this order."""
        self.moved: int | None = None
        """When it is due after it was rescheduled, by elapsed time."""
        self.highest = now.wall
        """The latest time that the wall clock has shown since the last run: a task that has fallen due may start, although the
        clock was set back while it waited."""
        self.skip_after = min(MINUTE, plan.period) if plan.kind in ("start", "end") else MINUTE

    @abstractmethod
    def due(self, now: Now) -> int:
        """When it is due at the latest, by elapsed time."""

    @abstractmethod
    def start(self, now: Now, served: int) -> None:
        """A run starts."""

    @abstractmethod
    def end(self, now: Now) -> None:
        """A run ends."""

    def clock_is_set(self, before: Now, now: Now) -> None:  # noqa: B027
        """The wall clock was set."""


class Periods(Recurrence):
    """A period from start to start: a grid of elapsed time."""

    def __init__(self, plan: Plan, now: Now) -> None:
        super().__init__(plan, now)
        self.origin = now.mono + (plan.period if plan.first is None else plan.first)
        self.next = self.origin
        self.start_at = self.origin
        self.was_extra = False

    def due(self, now: Now) -> int:
        due = self.start_at if self.moved is None else self.moved
        if self.plan.missed == "skip" and now.mono - due >= self.skip_after:
            if self.moved is None or self.next <= self.moved:
                self.next += self.plan.period
            self.moved = None
            self.next = self.start_at = self.first_after(now.mono - self.skip_after)
            return self.start_at
        return due

    def first_after(self, moment: int) -> int:
        """The first unserved time after a moment."""
        missed = max((moment - self.next) // self.plan.period + 1, 0)
        return self.next + missed * self.plan.period

    def start(self, now: Now, served: int) -> None:
        self.was_extra = self.next > now.mono
        if self.was_extra:
            return
        self.next = self.first_after(now.mono) if self.plan.missed == "latest" else self.next + self.plan.period

    def end(self, now: Now) -> None:
        if self.plan.missed == "skip":
            self.next = self.start_at = self.first_after(now.mono - self.skip_after)
            return
        self.start_at = max(self.next, now.mono)
        if self.plan.missed == "latest" and self.next <= now.mono:
            self.next = self.first_after(now.mono) - self.plan.period  # the latest


class Pauses(Recurrence):
    """A period from the end of a run to the next start."""

    def __init__(self, plan: Plan, now: Now) -> None:
        super().__init__(plan, now)
        self.start_at = now.mono + (plan.period if plan.first is None else plan.first)

    def planned(self) -> int:
        """When it is due, unless it is too late then."""
        return self.start_at if self.moved is None else self.moved

    def due(self, now: Now) -> int:
        due = self.planned()
        if self.plan.missed == "skip" and now.mono - due >= self.skip_after:
            self.moved = None
            due = self.start_at = now.mono + self.plan.period
        return due

    def start(self, now: Now, served: int) -> None: ...

    def end(self, now: Now) -> None:
        self.start_at = now.mono + self.plan.period


class Times(Recurrence):
    """A list of times of the wall clock."""

    def __init__(self, plan: Plan, now: Now) -> None:
        super().__init__(plan, now)
        period = plan.period
        self.next = ((now.wall - (plan.first or 0)) // period + 1) * period
        # Of the times that have passed, the first is run; now, and not when the clock shows it again.
        self.at_once: int | None = now.mono if self.next <= now.wall and plan.missed != "skip" else None

    def due(self, now: Now) -> int:
        if self.moved is not None:
            due = self.moved
        elif self.at_once is not None:
            due = self.at_once
        else:
            due = self.next - now.wall + now.mono
        if self.plan.missed == "skip" and now.mono - due >= self.skip_after:
            if self.moved is None or self.next <= now.wall:
                self.next += self.plan.period
            self.moved = None
            self.next = self.first_after(now.wall - self.skip_after)
            return self.next - now.wall + now.mono
        return due

    def first_after(self, moment: int) -> int:
        return max(self.next, (moment // self.plan.period + 1) * self.plan.period)

    def start(self, now: Now, served: int) -> None:
        self.at_once = None
        if self.next > now.wall:
            return
        self.next = self.first_after(now.wall) if self.plan.missed == "latest" else self.next + self.plan.period

    def end(self, now: Now) -> None:
        if self.plan.missed == "skip":
            self.next = self.first_after(now.wall - self.skip_after)
        elif self.next <= now.wall:
            self.at_once = now.mono
            if self.plan.missed == "latest":
                self.next = self.first_after(now.wall) - self.plan.period


class Function(Recurrence):
    """A function of now."""

    def __init__(self, plan: Plan, now: Now) -> None:
        super().__init__(plan, now)
        self.done_until = now.wall
        """The time up to which nothing more is due, by the current clock."""
        self.since = now.wall
        self.lived: list[tuple[int, int]] = []
        """The parts of the periods between two steps in which times are served, or were left out."""
        self.served: set[int] = set()
        self.was_set_back = False
        """Whether that was so since the last run, or during it: then nothing is owed for a jump that follows."""

    def due(self, now: Now) -> int:
        if self.plan.missed == "skip":
            self.done_until = max(self.done_until, now.wall - self.skip_after)
            if self.moved is not None and now.mono - self.moved >= self.skip_after:
                self.moved = None
        return self.next() - now.wall + now.mono if self.moved is None else self.moved

    def next(self) -> int:
        """The first time that is not done, and lies in no period that was lived."""
        period = self.plan.period
        time = (self.done_until // period + 1) * period
        while True:
            ends = [end for begin, end in self.lived if begin <= time <= end]
            if not ends and time not in self.served:
                return time
            time = (max([time, *ends]) // period + 1) * period

    def start(self, now: Now, served: int) -> None:
        self.was_set_back = False
        time = self.next()
        if self.moved is None:
            assert served % self.plan.period == 0, f"{self.plan}: not a time of the function"
            assert served not in self.served, f"{self.plan} serves {served} twice"
            assert served <= self.highest, f"{self.plan} is early"
            self.served.add(served)
            time = served
        if time <= now.wall:
            self.done_until = max(self.done_until, now.wall) if self.plan.missed == "latest" else time

    def end(self, now: Now) -> None: ...

    def clock_is_set(self, before: Now, now: Now) -> None:
        if abs(now.wall - before.wall) <= SECOND:
            return
        self.lived.append((self.since, min(before.wall, self.done_until)))
        self.since = now.wall
        self.was_set_back |= now.wall < before.wall
        if self.was_set_back:
            self.done_until = now.wall


KINDS: dict[str, type[Recurrence]] = {"start": Periods, "end": Pauses, "times": Times, "function": Function}


@dataclass
class Model:
    """Reads a record, and finds fault with it."""

    play: Play
    now: Now = field(init=False)
    before: Now = field(init=False)
    """The clocks before time passed last."""
    stale: int | None = None
    """Since when the clock may be another than the scheduler knows."""

    def __post_init__(self) -> None:
        self.places = count(1)
        self.jobs: dict[int, Recurrence] = {}
        self.former: dict[int, list[Recurrence]] = {}
        self.running = 0

    def check(self) -> None:
        first = self.play.record[0]
        self.before = self.now = Now(first.mono, first.wall)
        for note in self.play.record:
            self.note = note
            if note.what == "held up":
                self.pass_time(note.mono, held_up=True)
            else:
                self.let_pass(note.mono)
            if note.what != "step":
                assert note.wall == self.now.wall
            getattr(self, "on_" + note.what.replace(" ", "_"))(note.job, *note.details)

    # Time

    def let_pass(self, until: int) -> None:
        if self.stale is not None and self.stale + RECHECK <= until:
            self.pass_time(self.stale + RECHECK)
            self.stale = None
        self.pass_time(until)

    def pass_time(self, until: int, *, held_up: bool = False) -> None:
        if until == self.now.mono:
            return
        after = Now(until, self.now.wall + until - self.now.mono)
        for number, job in self.jobs.items():
            if not held_up and self.is_watched(number, job):
                due = job.due(self.now)
                assert due >= until, f"{job.plan} is late: {due}, {self.note}"
            job.highest = max(job.highest, after.wall)
        self.before, self.now = self.now, after
        if held_up and self.stale is not None and self.stale + RECHECK <= until:
            self.stale = None

    def is_watched(self, number: int, job: Recurrence) -> bool:
        """Whether a task could start, and the scheduler knows the clock that it is due by."""
        return self.waits(number, job) and not self.is_unknown(job)

    def is_unknown(self, job: Recurrence) -> bool:
        """Whether the scheduler does not know the time of the clock that a task is due by."""
        return isinstance(job, (Times, Function)) and job.moved is None and self.stale is not None

    def waits(self, number: int, job: Recurrence) -> bool:
        """Whether a task is pending, and could start."""
        is_full = self.play.script.limit is not None and self.running >= self.play.script.limit
        is_blocked = any(former.running for former in self.former.get(number, []))
        return not (job.over or job.running or job.paused or is_full or is_blocked)

    # What happens

    def on_schedule(self, number: int) -> None:
        if number in self.jobs:
            self.displace(number)
        plan = self.play.script.plans[number]
        self.jobs[number] = job = KINDS[plan.kind](plan, self.now)
        job.place = next(self.places)

    def displace(self, number: int) -> None:
        job = self.jobs.pop(number)
        job.over = True
        if job.running:
            self.former.setdefault(number, []).append(job)

    def on_start(self, number: int, served: int) -> None:
        job = self.jobs[number]
        assert self.waits(number, job), "it may not start"
        due = job.due(self.now)
        for other_number, other in self.jobs.items():
            if (
                isinstance(other, Pauses)
                and self.waits(other_number, other)
                and (other.planned(), other.place) < (due, job.place)
            ):
                other.due(self.now)  # it came first, was too late, and begins a new period now
        if not isinstance(job, Function) or job.moved is not None:
            fell_due = isinstance(job, Times) and job.next <= job.highest
            assert due <= self.now.mono or fell_due, f"{job.plan} is early: {due}, {self.note}"
        job.start(self.now, served)
        job.moved = None
        job.running = True
        job.highest = self.now.wall
        self.running += 1

    def on_end(self, number: int, how: str) -> None:
        former = [job for job in self.former.get(number, []) if job.running]
        job = former[0] if former else self.jobs[number]
        job.running = False
        self.running -= 1
        if not former:
            assert how == "ended" or self.note.what == "leave" or self.leaving
            job.end(self.now)
            job.place = next(self.places)

    leaving = False

    def on_reschedule(self, number: int, delay: int, moved: bool) -> None:
        job = self.jobs.get(number)
        assert moved is (job is not None and not job.running)
        if job is not None and moved:
            job.moved = self.now.mono + delay
            job.place = next(self.places)

    def on_pause(self, number: int) -> None:
        self.jobs[number].paused = True

    def on_resume(self, number: int) -> None:
        self.jobs[number].paused = False

    def on_cancel(self, number: int) -> None:
        self.displace(number)

    def on_step(self, _: int, delta: int, notify: bool) -> None:
        after = Now(self.now.mono, self.now.wall + delta)
        for job in self.jobs.values():
            job.clock_is_set(self.now, after)
            job.highest = max(job.highest, after.wall)
        self.now = after
        if notify:
            self.stale = None
        elif self.stale is None:
            self.stale = self.now.mono

    def on_held_up(self, _: int) -> None:
        for job in self.jobs.values():
            if not (job.running or job.paused or self.is_unknown(job)) and job.due(self.before) >= self.before.mono:
                job.due(self.now)  # late runs are skipped at once, also if they would have to wait for a slot

    def on_rest(self, _: int, held: dict[int, str]) -> None:
        assert held == {number: "RUNNING" if job.running else "PENDING" for number, job in self.jobs.items()}
        for number, job in self.jobs.items():
            if self.is_watched(number, job):
                job.due(self.now)  # late runs are skipped, also if the clock is then set back

    def on_leave(self, _: int) -> None:
        self.leaving = True


def play(script: Script, backend: Literal["asyncio", "trio"], simulated: Counter[str]) -> None:
    """Play a script, and check the record."""
    clock = VirtualClock(START, autojump=False, busy_limit=100_000)
    name, options = clock.backend(backend)
    scene = Play(script, clock)
    anyio.run(scene.main, backend=name, backend_options=options)
    model = Model(scene)
    model.check()
    simulated["seconds"] += model.now.mono // SECOND
    simulated["starts"] += sum(note.what == "start" for note in scene.record)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=SCRIPTS)
def test_what_recurs_goes_by_the_model(
    simulated: Counter[str], backend: Literal["asyncio", "trio"], script: Script
) -> None:
    play(script, backend, simulated)
