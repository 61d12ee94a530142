"""Recurring tasks over months and years of virtual time, against references: cronsim, dateutil, and a model in integers."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, takewhile
from typing import Any, Literal
from zoneinfo import ZoneInfo

import anyio
import hypothesis.strategies as st
import pytest
from cronsim import CronSim, CronSimError
from dateutil.rrule import DAILY, HOURLY, rrule
from hypothesis import HealthCheck, example, given, settings

from anysched import ScheduledTask, Scheduler
from anysched.testing import VirtualClock

BACKENDS: list[Literal["asyncio", "trio"]] = ["asyncio", "trio"]
START = datetime(2025, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)

backends = pytest.mark.parametrize("backend", BACKENDS)


def play(backend: Literal["asyncio", "trio"], main: Callable[[VirtualClock], Any], start: datetime = START) -> None:
    """Run a function in its own event loop, in virtual time."""
    clock = VirtualClock(start)
    name, options = clock.backend(backend)
    anyio.run(main, clock, backend=name, backend_options=options)


class Log:
    """A function that records the times of its runs by the wall clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.times: list[datetime] = []

    async def __call__(self) -> None:
        self.times.append(self.clock.now())


def instants(times: Iterator[datetime], until: datetime) -> list[datetime]:
    """The times up to one of them, in UTC."""
    return list(takewhile(until.__ge__, (time.astimezone(UTC) for time in times)))


# A year


@cache
def daily(zone: str) -> list[datetime]:
    """The times of a daily job, for a year and a month."""
    return instants(CronSim("30 2 * * *", START.astimezone(ZoneInfo(zone))), START + YEAR + 30 * DAY)


@backends
def test_a_year_of_a_daily_job(backend: Literal["asyncio", "trio"]) -> None:
    zone = ZoneInfo("Europe/Berlin")

    async def main(clock: VirtualClock) -> None:
        log = Log(clock)
        async with Scheduler("test") as scheduler:
            scheduler.schedule_at_times(CronSim("30 2 * * *", START.astimezone(zone)), "id", log)
            await clock.advance(YEAR)
        assert log.times == daily("Europe/Berlin")[:365]
        # Where the clocks are set forward, at the end of the gap; where they are set back, at the first of two times.
        assert datetime(2025, 3, 30, 1, tzinfo=UTC) in log.times
        assert datetime(2025, 10, 26, 0, 30, tzinfo=UTC) in log.times

    play(backend, main)


@backends
@pytest.mark.parametrize("missed", ["latest", "all"])
def test_a_year_of_a_daily_job_with_steps_and_suspends(backend: Literal["asyncio", "trio"], missed: Any) -> None:
    """Every few days the clock is set, or the machine sleeps, for up to three days."""
    begin = START.astimezone(ZoneInfo("America/New_York"))
    chance = random.Random(5)
    times = daily("America/New_York")

    async def main(clock: VirtualClock) -> None:
        served: list[datetime] = []
        task: ScheduledTask[None]

        async def work() -> None:
            # The due times that the run covers: the earliest one that no run has covered, or all.
            due = times[len(served) : bisect_right(times, clock.now())]
            assert due, "a time was run twice, or too early"
            served.extend(due[:1] if missed == "all" else due)

        async with Scheduler("test") as scheduler:
            task = scheduler.schedule_at_times(CronSim("30 2 * * *", begin), "id", work, missed=missed)
            while clock.now() < START + YEAR:
                await clock.advance(timedelta(days=chance.uniform(1, 5)))
                jump = timedelta(days=chance.uniform(-3, 3))
                match chance.choice(["step", "suspend"]):
                    case "suspend":
                        clock.suspend(abs(jump))
                    case _:
                        clock.step_wall(jump)
                await clock.settle()
                # Nothing that is due has been left out, and what comes next is the next time.
                assert served == times[: max(len(served), bisect_right(times, clock.now()))]
                assert task.due == times[len(served)]
        assert len(served) >= 364
        assert task.run_count == len(served) if missed == "all" else 200 < task.run_count < 364

    play(backend, main)


@backends
def test_a_year_of_a_daily_period(backend: Literal["asyncio", "trio"]) -> None:
    """Elapsed time: whatever the wall clock does, there are 365 days of 24 hours."""
    chance = random.Random(6)

    async def main(clock: VirtualClock) -> None:
        starts: list[float] = []

        async def work() -> None:
            starts.append(clock.monotonic())
            await anyio.sleep(chance.uniform(0, 80_000))

        async with Scheduler("test") as scheduler:
            scheduler.schedule_every(DAY, "id", work)
            for _ in range(365):
                await clock.advance(DAY)
                clock.step_wall(timedelta(days=chance.uniform(-3, 3)))
        assert starts == [86_400 * (n + 1) for n in range(365)]

    play(backend, main)


# Daylight saving time


CHANGES = [
    # The zone; about when the clocks are set forward, and back, in 2025.
    ("Europe/Berlin", datetime(2025, 3, 28, 12, tzinfo=UTC), datetime(2025, 10, 24, 12, tzinfo=UTC)),
    ("America/New_York", datetime(2025, 3, 7, 12, tzinfo=UTC), datetime(2025, 10, 31, 12, tzinfo=UTC)),
    (
        "Australia/Lord_Howe",
        datetime(2025, 10, 3, 12, tzinfo=UTC),
        datetime(2025, 4, 4, 12, tzinfo=UTC),
    ),  # by 30 minutes
]


@backends
@pytest.mark.parametrize(("zone", "gap", "fold"), CHANGES)
@pytest.mark.parametrize("change", ["gap", "fold"])
@pytest.mark.parametrize("expression", ["30 2 * * *", "15 2 * * *", "45 1 * * *", "0 * * * *", "*/20 * * * *"])
def test_changes_of_the_clocks_are_as_cronsim_says(
    backend: Literal["asyncio", "trio"], zone: str, gap: datetime, fold: datetime, change: str, expression: str
) -> None:
    start = gap if change == "gap" else fold
    local = start.astimezone(ZoneInfo(zone))
    end = start + 4 * DAY
    assert local.utcoffset() != end.astimezone(ZoneInfo(zone)).utcoffset(), "the clocks do not change"

    async def main(clock: VirtualClock) -> None:
        log = Log(clock)
        async with Scheduler("test") as scheduler:
            scheduler.schedule_at_times(CronSim(expression, local), "id", log)
            await clock.advance(4 * DAY)
        assert log.times == instants(CronSim(expression, local), end)
        assert len(log.times) >= 4

    play(backend, main, start)


@backends
@pytest.mark.parametrize(("zone", "gap", "fold"), CHANGES)
def test_an_hour_that_the_rule_repeats_is_run_once(
    backend: Literal["asyncio", "trio"], zone: str, gap: datetime, fold: datetime
) -> None:
    """dateutil counts in wall-clock time: the times that it yields in a gap are instants that it yields again."""

    def hourly() -> rrule:
        return rrule(HOURLY, dtstart=gap.astimezone(ZoneInfo(zone)), count=96)

    async def main(clock: VirtualClock) -> None:
        log = Log(clock)
        async with Scheduler("test") as scheduler:
            task = scheduler.schedule_at_times(hourly(), "id", log)
            await task
        listed = [time.astimezone(UTC) for time in hourly()]
        assert log.times == sorted(set(listed))

    play(backend, main, gap - DAY)


@backends
def test_a_rule_of_dateutil(backend: Literal["asyncio", "trio"]) -> None:
    async def main(clock: VirtualClock) -> None:
        log = Log(clock)
        rule = rrule(DAILY, dtstart=datetime(2020, 1, 1, 9))
        async with Scheduler("test") as scheduler:
            scheduler.schedule_at_times(rule.xafter(clock.now().replace(tzinfo=None)), "id", log)
            await clock.advance(10 * DAY)
        assert log.times == [START + timedelta(days=n, hours=9) for n in range(10)]

    play(backend, main)


# Random cron expressions


def random_field(chance: random.Random, low: int, high: int) -> str:
    def number() -> str:
        return str(chance.randint(low, high))

    def span() -> str:
        return "-".join(map(str, sorted((chance.randint(low, high), chance.randint(low, high)))))

    match chance.randrange(7):
        case 0 | 1 | 2:
            return "*"
        case 3:
            return number()
        case 4:
            return ",".join(chance.choice([number, span])() for _ in range(chance.randint(2, 4)))
        case 5:
            return f"{chance.choice(['*', span()])}/{chance.randint(1, (high - low) // 2 + 1)}"
        case _:
            return span()


def random_expression(chance: random.Random) -> str:
    fields = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
    expression = [random_field(chance, low, high) for low, high in fields]
    if chance.random() < 0.1:
        expression[2] = chance.choice(["L", "LW"])
    if chance.random() < 0.1:
        expression[4] = chance.choice(["MON-FRI", "5L", "SUN#2"])
    return " ".join(expression)


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns"]


@backends
@pytest.mark.parametrize("seed", range(10))
def test_the_times_of_the_runs_are_those_that_cronsim_lists(backend: Literal["asyncio", "trio"], seed: int) -> None:
    """A thousand random expressions from random moments, a hundred at a time in one event loop, a few runs each."""
    chance = random.Random(seed)
    expected: list[tuple[str, datetime, list[datetime]]] = []
    while len(expected) < 100:
        start = START + timedelta(seconds=chance.randrange(3 * 365 * 86_400))
        local = start.astimezone(ZoneInfo(chance.choice(ZONES)))
        expression = random_expression(chance)
        try:
            times = [time.astimezone(UTC) for time in islice(CronSim(expression, local), 5)]
        except CronSimError:  # the 31st of February
            continue
        if times:
            expected.append((expression, local, times))

    async def main(clock: VirtualClock) -> None:
        async with Scheduler("test") as scheduler:

            def begin(number: int, expression: str, start: datetime) -> None:
                scheduler.schedule_at_times(islice(CronSim(expression, start), 5), number, logs[number])

            logs = [Log(clock) for _ in expected]
            for number, (expression, local, _) in enumerate(expected):

                async def begin_then(number: int = number, expression: str = expression, local: Any = local) -> None:
                    begin(number, expression, local)

                scheduler.schedule_at(local, ("begin", number), begin_then)
            await scheduler.join()
        for (expression, local, times), log in zip(expected, logs, strict=True):
            assert log.times == times, (expression, local)

    play(backend, main)


# Against a model


@dataclass(frozen=True)
class Event:
    """An event that affects the task or the clock, some time after the previous event."""

    after: int
    what: Literal["step", "suspend", "reschedule"]
    by: int


@dataclass(frozen=True)
class Life:
    """A recurring task, the durations of its runs, and events in between. All times are in milliseconds."""

    kind: Literal["every", "each"]
    missed: Literal["latest", "all"]
    first: int
    """When it begins, relative to the call."""
    at: bool
    """Whether the first time is a wall-clock time (for periods)."""
    gaps: list[int]
    """The time between two due times, the period (for the first), or a value that does not advance."""
    durations: list[int]
    jitter: int
    events: list[Event]


UNITS = st.integers(1, 60) | st.integers(1, 2_000)
LIVES = st.builds(
    Life,
    kind=st.sampled_from(["every", "each"]),
    missed=st.sampled_from(["latest", "all"]),
    first=st.integers(-500, 500),
    at=st.booleans(),
    gaps=st.lists(UNITS | st.integers(-10, 0), min_size=1, max_size=40),
    durations=st.lists(st.just(0) | UNITS, max_size=30),
    jitter=st.sampled_from([0, 0, 7, 100]),
    events=st.lists(
        st.builds(
            Event,
            after=UNITS,
            what=st.sampled_from(["step", "suspend", "reschedule"]),
            by=st.integers(-2_000, 2_000) | UNITS,
        ),
        max_size=12,
    ),
)

SPAN = 3_000
"""How long the model runs after the last event, in monotonic milliseconds."""


class Model:
    """One recurring task, simulated step by step in integers: microseconds of both clocks, from 0 at the call.

    It knows all times beforehand, and finds the ones that it needs by looking through them all.
    """

    def __init__(self, life: Life, seed: int) -> None:
        self.life = life
        self.chance = random.Random(seed)
        self.now = self.offset = 0
        self.events: list[tuple[int, Event]] = []
        moment = 0
        for event in life.events:
            moment += event.after * 1000 + 1  # one microsecond apart from all else: there are no ties
            self.events.append((moment, event))
        self.end = moment + SPAN * 1000
        self.starts: list[int] = []
        self.due: tuple[bool, int] | None = None
        """Which clock, and when."""

    @property
    def wall(self) -> int:
        return self.now + self.offset

    def draw(self) -> int:
        jitter = self.jitter / 1e6
        return round(round(self.chance.uniform(0, jitter), 6) * 1e6) if jitter else 0

    @property
    def jitter(self) -> int:
        """In microseconds; less than the period, if there is one."""
        jitter = self.life.jitter * 1000
        return min(jitter, self.period - 1) if self.life.kind == "every" else jitter

    @property
    def period(self) -> int:
        return max(abs(self.life.gaps[0]), 20) * 1000

    def times(self) -> list[int]:
        """The times of the iterator, by the wall clock."""
        times = [self.life.first * 1000]
        for gap in self.life.gaps:
            times.append(times[-1] + gap * 1000)
        return times

    def pass_until(self, moment: int | None) -> bool:
        """Let time pass until a moment, or until the task is due; return whether that comes before the end."""
        while True:
            if moment is None:
                assert self.due is not None
                wall, when = self.due
                target = max(when - self.offset if wall else when, self.now)
            else:
                target = moment
            if self.events and self.events[0][0] <= target:
                self.now, event = self.events.pop(0)
                match event.what:
                    case "reschedule" if moment is None:
                        self.due = (False, self.now + max(event.by * 1000, 0))
                    case "step":
                        self.offset += event.by * 1000
                    case "suspend":
                        self.offset += abs(event.by) * 1000
                    case _:
                        pass
                continue
            if target > self.end:
                return False
            self.now = target
            return True

    def run(self) -> tuple[int, int, int] | None:
        """Wait for the start and the end of a run; return the wall time of the start, and both times of the end."""
        if not self.pass_until(None):
            return None
        start = self.now, self.wall
        self.starts.append(self.now)
        durations = self.life.durations
        duration = durations[len(self.starts) - 1] if len(self.starts) <= len(durations) else 0
        if not self.pass_until(self.now + duration * 1000):
            return None
        return (*start, self.now)

    def live(self) -> list[int]:
        if self.life.kind == "every":
            self.live_every()
        else:
            self.live_each()
        return self.starts

    def live_each(self) -> None:
        increasing: list[int] = []
        for time in self.times():
            if not increasing or time > increasing[-1]:
                increasing.append(time)
        own, jitter = increasing[0], self.draw()
        self.due = (True, own + jitter)
        while run := self.run():
            _, start_wall, _ = run
            brought_forward = own > start_wall - jitter  # it does not cover later times
            served = max(own, start_wall - jitter) if self.life.missed == "latest" else own
            left = [time for time in increasing if time > served or (brought_forward and time == own)]
            missed = [time for time in left if time <= self.wall - jitter] if self.life.missed == "latest" else []
            if missed:
                own = missed[-1]
                self.due = (False, self.now)
            elif left:
                own, jitter = left[0], jitter if brought_forward else self.draw()
                self.due = (True, own + jitter) if own + jitter > self.wall else (False, self.now)
            else:
                return

    def live_every(self) -> None:
        life = self.life
        index, jitter = 0, self.draw()
        if life.at:
            origin = life.first * 1000
            self.due = (True, origin + jitter)
        else:
            origin = max(life.first * 1000, 0)
            self.due = (False, origin + jitter)
        known = not life.at
        while run := self.run():
            start, start_wall, _ = run
            if not known:
                origin, known = start - (start_wall - origin), True
            brought_forward = origin + index * self.period + jitter > start
            if life.missed == "latest":
                if not brought_forward:
                    index = max(index, (start - jitter - origin) // self.period)
                latest = (self.now - jitter - origin) // self.period
                if latest > index or (brought_forward and latest == index):
                    index = latest
                    self.due = (False, self.now)
                    continue
            if not brought_forward:
                index += 1
                jitter = self.draw()
            self.due = (False, max(origin + index * self.period + jitter, self.now))


async def live(life: Life, seed: int, clock: VirtualClock) -> list[int]:
    """The same life of a real task; returns when the runs started, in microseconds."""
    model = Model(life, seed)
    starts: list[int] = []
    random.seed(seed)

    async def work() -> None:
        number = len(starts)
        starts.append(round(clock.monotonic() * 1e6))
        if number < len(life.durations) and life.durations[number]:
            await anyio.sleep(life.durations[number] / 1e3)

    def micros(number: int) -> timedelta:
        return timedelta(microseconds=number)

    async with Scheduler("test") as scheduler:
        options: Any = {"missed": life.missed, "jitter": model.jitter / 1e6}
        if life.kind == "every":
            first: Any = START + micros(life.first * 1000) if life.at else micros(life.first * 1000)
            task = scheduler.schedule_every(micros(model.period), "id", work, first=first, **options)
        else:
            times = (START + micros(time) for time in model.times())
            task = scheduler.schedule_at_times(times, "id", work, **options)
        now = 0
        for moment, event in list(model.events):
            await clock.advance(micros(moment - now))
            now = moment
            match event.what:
                case "reschedule":
                    assert scheduler.reschedule_later(event.by / 1e3, "id") is (task.status.name == "PENDING")
                case "step":
                    clock.step_wall(micros(event.by * 1000))
                case _:
                    clock.suspend(micros(abs(event.by) * 1000))
        await clock.advance(micros(model.end - now))
        assert task.run_count == len(starts)
    return starts


@pytest.mark.slow
@backends
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(life=LIVES, seed=st.integers(0, 1_000))
@example(life=Life("every", "latest", 0, False, [5], [30, 0, 12], 0, []), seed=0)
@example(life=Life("each", "latest", 10, True, [10, 10, 0, 10], [35], 7, [Event(5, "step", -100)]), seed=1)
def test_a_life_goes_by_the_model(backend: Literal["asyncio", "trio"], life: Life, seed: int) -> None:
    async def main(clock: VirtualClock) -> None:
        assert await live(life, seed, clock) == Model(life, seed).live()

    play(backend, main)
