"""Behaviours that the documentation of `pydis_core` describes or its users encounter, each tried on a scheduler.

A behaviour is a function whose docstring is the first cell of a row in ``docs/coming-from/pydis_core.md``. It returns a
description of what it saw. It does not know which of the two schedulers and which event loop it runs on.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import anyio

from anysched.testing import VirtualClock
from support import is_closed, settle


class Trial(Protocol):
    """One trial of a behaviour, in its own run of an event loop."""

    new: Callable[[str], Any]
    """Creates a scheduler."""
    scheduler: Any
    """A running scheduler with the name ``x``."""
    create_task: Callable[..., Any]
    """The `create_task` of the same package."""
    backend: str
    """The running event loop: asyncio or trio."""
    moved: bool
    """Whether the program has been migrated, if that changes one of its lines."""

    def logged(self, level: int = 0) -> str:
        """Return what the scheduler has logged at a level or above: ``WARNING: text; ...``."""
        ...


BEHAVIOURS: list[Callable[[Trial], Awaitable[str]]] = []
FAULTS: list[Callable[[Trial], Awaitable[str]]] = []
DEBUG, INFO, WARNING = 10, 20, 30

variable = ContextVar("variable", default="nothing")


def behaviour(function: Callable[[Trial], Awaitable[str]]) -> Callable[[Trial], Awaitable[str]]:
    """Append a behaviour to the table."""
    BEHAVIOURS.append(function)
    return function


def fault(function: Callable[[Trial], Awaitable[str]]) -> Callable[[Trial], Awaitable[str]]:
    """Add a behaviour to the table of bugs that the migration fixes."""
    FAULTS.append(function)
    return behaviour(function)


def refusal(call: Callable[[], object]) -> str:
    """Return a description of what a call raises that should be refused."""
    try:
        call()
    except Exception as exception:
        return f"`{type(exception).__name__}` in the call"
    return "accepted"


async def divide() -> int:
    """Fail."""
    raise ZeroDivisionError


def name_of_task() -> str | None:
    return anyio.get_current_task().name


class Work:
    """A coroutine function that records how its coroutines end."""

    def __init__(self) -> None:
        self.started: list[float] = []
        self.events: list[str] = []
        self.begun = anyio.Event()

    async def __call__(self, seconds: float = 0) -> None:
        """Sleep."""
        self.started.append(anyio.current_time())
        self.begun.set()
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            self.events.append("cancelled")
            raise
        else:
            self.events.append("ran to its end")

    def story(self) -> str:
        """Return how it has ended."""
        if not self.started:
            return "never ran"
        return ", ".join(self.events) or "still runs"

    def delay(self) -> str:
        """Return when it started, in seconds since the beginning of the run."""
        if not self.started:
            return "never started"
        return "started at once" if self.started[0] == 0 else f"started after {self.started[0]:g} s"


# Creating a scheduler


@behaviour
async def logger(trial: Trial) -> str:
    """Logger of `Scheduler("x")`"""
    names: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        names.append(record.name)
        return False  # the handler itself has nothing to do

    handler = logging.Handler()
    handler.addFilter(collect)
    logging.root.addHandler(handler)
    try:
        trial.scheduler.cancel("unknown")
    finally:
        logging.root.removeHandler(handler)
    return f"`{names[0]}`"


@behaviour
async def not_entered(trial: Trial) -> str:
    """`schedule` on a scheduler that was only constructed"""
    work = Work()
    scheduler = trial.new("y")
    refused = refusal(lambda: scheduler.schedule("id", work()))
    await settle()
    return work.story() if refused == "accepted" else refused


@behaviour
async def context_manager(trial: Trial) -> str:
    """`async with Scheduler("x")`"""
    work = Work()
    try:
        async with trial.new("y") as scheduler:
            scheduler.schedule("id", work(10))
            await work.begun.wait()
    except TypeError:
        return "`TypeError`"
    return f"on exit, tasks are {work.story()} and awaited"


# Scheduling


@behaviour
async def schedule(trial: Trial) -> str:
    """`schedule(task_id, coroutine)`"""
    work = Work()
    trial.scheduler.schedule("id", work())
    inside = bool(work.started)
    await settle()
    return f"{'started inside the call' if inside else 'started soon, not inside the call'}; {work.story()}"


@behaviour
async def keywords(trial: Trial) -> str:
    """The parameters as keywords: `task_id`, `coroutine`, `delay`, `time`"""
    work = Work()
    trial.scheduler.schedule(task_id=1, coroutine=work())
    trial.scheduler.schedule_later(delay=5, task_id=2, coroutine=work())
    trial.scheduler.schedule_at(time=datetime.now(UTC) + timedelta(seconds=9), task_id=3, coroutine=work())
    await anyio.sleep(10)
    return f"all accepted; started after {', '.join(f'{seconds:g}' for seconds in work.started)} s"


@behaviour
async def returned(trial: Trial) -> str:
    """What `schedule`, `schedule_later` and `schedule_at` return"""
    work = Work()
    results = [
        trial.scheduler.schedule(1, work()),
        trial.scheduler.schedule_later(5, 2, work()),
        trial.scheduler.schedule_at(datetime.now(UTC) + timedelta(seconds=9), 3, work()),
    ]
    await anyio.sleep(10)
    (kind,) = {type(result).__name__ for result in results}
    return "`None`" if kind == "NoneType" else f"a handle, `{kind}`"


@behaviour
async def task_name(trial: Trial) -> str:
    """Name of the event loop's task"""
    names = []

    async def work() -> None:
        names.append(name_of_task())

    trial.scheduler.schedule(42, work())
    await settle()
    return f"`{names[0]}`"


@behaviour
async def contains(trial: Trial) -> str:
    """`task_id in scheduler`"""
    work = Work()
    seen = {}
    trial.scheduler.schedule_later(10, "id", work(10))
    seen["pending"] = "id" in trial.scheduler
    await anyio.sleep(15)
    seen["running"] = "id" in trial.scheduler
    await anyio.sleep(15)
    seen["ended"] = "id" in trial.scheduler
    return ", ".join(f"{state}: `{held}`" for state, held in seen.items())


@behaviour
async def schedule_later(trial: Trial) -> str:
    """`schedule_later(10, ...)`"""
    work = Work()
    trial.scheduler.schedule_later(10, "id", work())
    await anyio.sleep(20)
    return work.delay()


@behaviour
async def negative_delay(trial: Trial) -> str:
    """`schedule_later(0, ...)`, `schedule_later(-5, ...)`"""
    zero, negative = Work(), Work()
    trial.scheduler.schedule_later(0, 1, zero())
    trial.scheduler.schedule_later(-5, 2, negative())
    await anyio.sleep(20)
    return f"{zero.delay()}, {negative.delay()}"


@behaviour
async def timedelta_delay(trial: Trial) -> str:
    """`schedule_later(timedelta(minutes=1), ...)`"""
    work = Work()
    refused = refusal(lambda: trial.scheduler.schedule_later(timedelta(minutes=1), "id", work()))
    await anyio.sleep(100)
    logged = "; an error is logged" if trial.logged(WARNING) else ""
    return (work.delay() if refused == "accepted" else refused) + logged


@behaviour
async def nan_delay(trial: Trial) -> str:
    """`schedule_later(math.nan, ...)`"""
    work = Work()
    refused = refusal(lambda: trial.scheduler.schedule_later(math.nan, "id", work()))
    await anyio.sleep(100)
    return work.delay() if refused == "accepted" else refused


@behaviour
async def schedule_at(trial: Trial) -> str:
    """`schedule_at`, an aware time 10 s from now"""
    work = Work()
    trial.scheduler.schedule_at(datetime.now(ZoneInfo("Asia/Kolkata")) + timedelta(seconds=10), "id", work())
    await anyio.sleep(20)
    return work.delay()


@behaviour
async def schedule_at_naive(trial: Trial) -> str:
    """`schedule_at`, a naive time (UTC) 10 s from now"""
    work = Work()
    time = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=10)
    refused = refusal(lambda: trial.scheduler.schedule_at(time, "id", work()))
    await anyio.sleep(20)
    return work.delay() if refused == "accepted" else refused


@behaviour
async def schedule_at_past(trial: Trial) -> str:
    """`schedule_at`, a time in the past"""
    work = Work()
    trial.scheduler.schedule_at(datetime.now(UTC) - timedelta(days=1), "id", work())
    await anyio.sleep(20)
    return work.delay()


async def _at_nine(trial: Trial, day: datetime, change: Callable[[VirtualClock], None] | None = None) -> str:
    """Schedule a task for nine o'clock the next day; return by how much it starts too early or too late by the wall clock."""
    clock = VirtualClock.current()
    await clock.travel_to(day - timedelta(days=1))
    seen: list[datetime] = []

    async def work() -> None:
        seen.append(clock.now())

    trial.scheduler.schedule_at(day, "id", work())
    await anyio.sleep(3600)
    if change is not None:
        change(clock)
    await anyio.sleep(3 * 86_400)
    difference = (seen[0] - day.astimezone(UTC)).total_seconds()
    if abs(difference) < 1:
        return "started at that time"
    return f"started {abs(difference) / 3600:g} h too {'late' if difference > 0 else 'early'}"


@behaviour
async def daylight_saving(trial: Trial) -> str:
    """`schedule_at`, 9:00 in Paris, the day before summer time begins"""
    return await _at_nine(trial, datetime(2025, 3, 30, 9, tzinfo=ZoneInfo("Europe/Paris")))


@behaviour
async def clock_forward(trial: Trial) -> str:
    """`schedule_at`, and the clock is set forward by 2 h in the meantime"""
    return await _at_nine(trial, datetime(2025, 1, 9, 9, tzinfo=UTC), lambda clock: clock.step_wall(7200))


@behaviour
async def clock_back(trial: Trial) -> str:
    """`schedule_at`, and the clock is set back by 2 h in the meantime"""
    return await _at_nine(trial, datetime(2025, 1, 9, 9, tzinfo=UTC), lambda clock: clock.step_wall(-7200))


@behaviour
async def suspended(trial: Trial) -> str:
    """`schedule_at`, and the machine sleeps for 2 h in the meantime"""
    return await _at_nine(trial, datetime(2025, 1, 9, 9, tzinfo=UTC), lambda clock: clock.suspend(7200))


@behaviour
async def function(trial: Trial) -> str:
    """A function with its arguments: `schedule_later(10, "id", remind, user)`"""
    work = Work()
    refused = refusal(lambda: trial.scheduler.schedule_later(10, "id", work, 1))
    await anyio.sleep(20)
    return work.delay() if refused == "accepted" else refused


@behaviour
async def context(trial: Trial) -> str:
    """Context variables that a task sees"""
    seen = []

    async def work() -> None:
        seen.append(variable.get())

    token = variable.set("those of the call")
    trial.scheduler.schedule_later(5, "id", work())
    variable.reset(token)
    await anyio.sleep(10)
    return seen[0]


@behaviour
async def order(trial: Trial) -> str:
    """Tasks that are due at the same moment"""
    seen = []

    async def work(number: int) -> None:
        seen.append(number)

    for number in range(20):
        trial.scheduler.schedule_later(5, number, work(number))
    await anyio.sleep(10)
    return "start in the order of the calls" if seen == sorted(seen) else "start in any order"


# Held IDs and refused calls


async def _duplicate(trial: Trial, schedule: Callable[[Any], None]) -> str:
    holder, work = Work(), Work()
    trial.scheduler.schedule("id", holder(10))
    await settle()
    coroutine = work()
    logged = trial.logged()
    schedule(coroutine)
    new = trial.logged()[len(logged) :].strip("; ")
    await anyio.sleep(20)
    closed = "closed" if is_closed(coroutine) else "not closed"
    return f"{closed}, {work.story()}; the holder {holder.story()}; logs {new.partition(':')[0]}"


@behaviour
async def duplicate(trial: Trial) -> str:
    """A held ID: the new coroutine, with `schedule`"""
    return await _duplicate(trial, lambda coroutine: trial.scheduler.schedule("id", coroutine))


@behaviour
async def duplicate_later(trial: Trial) -> str:
    """A held ID: the new coroutine, with `schedule_later`"""
    return await _duplicate(trial, lambda coroutine: trial.scheduler.schedule_later(5, "id", coroutine))


async def _started(trial: Trial, schedule: Callable[[Any], None]) -> str:
    """Schedule a coroutine that is already running elsewhere."""
    work = Work()
    coroutine = work(10)
    async with anyio.create_task_group() as tg:
        tg.start_soon(lambda: coroutine)
        await settle()
        refused = refusal(lambda: schedule(coroutine))
        await anyio.sleep(20)
    logged = "; an error is logged" if trial.logged(WARNING) else ""
    return f"{refused}{logged}; the coroutine {work.story()}"


@behaviour
async def already_started(trial: Trial) -> str:
    """A coroutine that was already started, with `schedule`"""
    return await _started(trial, lambda coroutine: trial.scheduler.schedule("id", coroutine))


@behaviour
async def already_started_later(trial: Trial) -> str:
    """A coroutine that was already started, with `schedule_later`"""
    return await _started(trial, lambda coroutine: trial.scheduler.schedule_later(5, "id", coroutine))


@behaviour
async def unhashable(trial: Trial) -> str:
    """An ID that is not hashable"""
    return refusal(lambda: trial.scheduler.schedule([], Work()()))


@behaviour
async def no_coroutine(trial: Trial) -> str:
    """Something that is not a coroutine"""
    return refusal(lambda: trial.scheduler.schedule("id", 5))


# Cancelling


@behaviour
async def cancel_pending(trial: Trial) -> str:
    """`cancel` of a pending task"""
    work = Work()
    coroutine = work()
    trial.scheduler.schedule_later(10, "id", coroutine)
    await anyio.sleep(1)
    trial.scheduler.cancel("id")
    held = "id" in trial.scheduler
    await anyio.sleep(20)
    closed = "closed" if is_closed(coroutine) else "not closed"
    return f"the ID is {'held' if held else 'free at once'}; {work.story()}, {closed}"


@behaviour
async def cancel_at_once(trial: Trial) -> str:
    """`schedule`, then `cancel` without an `await` between"""
    work = Work()
    trial.scheduler.schedule("id", work())
    trial.scheduler.cancel("id")
    await settle()
    return work.story()


@behaviour
async def cancel_later_at_once(trial: Trial) -> str:
    """`schedule_later`, then `cancel` without an `await` between"""
    work = Work()
    trial.scheduler.schedule_later(10, "id", work())
    trial.scheduler.cancel("id")
    await anyio.sleep(20)
    return work.story()


@behaviour
async def cancel_running(trial: Trial) -> str:
    """`cancel` of a running task, from `schedule`"""
    work = Work()
    trial.scheduler.schedule("id", work(10))
    await anyio.sleep(1)
    trial.scheduler.cancel("id")
    held = "id" in trial.scheduler
    await anyio.sleep(20)
    return f"the ID is {'held' if held else 'free at once'}; {work.story()}"


@behaviour
async def cancel_running_later(trial: Trial) -> str:
    """`cancel` of a running task, from `schedule_later`"""
    work = Work()
    trial.scheduler.schedule_later(5, "id", work(10))
    await anyio.sleep(6)
    trial.scheduler.cancel("id")
    held = "id" in trial.scheduler
    await anyio.sleep(20)
    return f"the ID is {'held' if held else 'free at once'}; {work.story()}"


async def _cleanup(trial: Trial, *, shield: bool) -> str:
    """Cancel a task that awaits something in its clean-up."""
    events = ["is also cancelled"]

    async def work() -> None:
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=shield):
                await anyio.sleep(1)
            events.append("continues")

    trial.scheduler.schedule("id", work())
    await anyio.sleep(1)
    trial.scheduler.cancel("id")
    await anyio.sleep(20)
    return events[-1]


@behaviour
async def cleanup(trial: Trial) -> str:
    """An `await` in the clean-up of a cancelled task"""
    return await _cleanup(trial, shield=False)


@behaviour
async def shielded_cleanup(trial: Trial) -> str:
    """The same, in `with anyio.CancelScope(shield=True):`"""
    return await _cleanup(trial, shield=True)


@behaviour
async def overlap(trial: Trial) -> str:
    """`cancel`, then `schedule` with the same ID, while the first task cleans up"""
    running = 0
    most = 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
            running -= 1

    trial.scheduler.schedule("id", work())
    await anyio.sleep(1)
    trial.scheduler.cancel("id")
    trial.scheduler.schedule("id", work())
    await anyio.sleep(60)
    return "both run at once" if most == 2 else "the second starts when the first has ended"


@behaviour
async def cancel_unknown(trial: Trial) -> str:
    """`cancel` of an unknown ID"""
    refused = refusal(lambda: trial.scheduler.cancel("id"))
    return f"{refused}; logs `{trial.logged(WARNING)}`"


@behaviour
async def cancel_returns(trial: Trial) -> str:
    """What `cancel` returns, for a held ID and for another"""
    trial.scheduler.schedule_later(5, "id", Work()())
    await settle()
    return ", ".join(f"`{trial.scheduler.cancel(task_id)}`" for task_id in ("id", "another"))


@behaviour
async def cancel_all(trial: Trial) -> str:
    """`cancel_all`, with a pending and a running task"""
    pending, running = Work(), Work()
    trial.scheduler.schedule_later(10, 1, pending())
    trial.scheduler.schedule(2, running(10))
    await anyio.sleep(1)
    trial.scheduler.cancel_all()
    held = 1 in trial.scheduler or 2 in trial.scheduler
    await anyio.sleep(20)
    return f"IDs {'held' if held else 'free at once'}; pending: {pending.story()}; running: {running.story()}"


@behaviour
async def cancel_all_nothing(trial: Trial) -> str:
    """`cancel_all`, with nothing held"""
    trial.scheduler.cancel_all()
    return f"logs `{trial.logged()}`" if trial.logged() else "logs nothing"


async def _cancel_itself(trial: Trial, schedule: Callable[[Any], None]) -> str:
    events = []

    async def work() -> None:
        trial.scheduler.cancel("id")
        try:
            await anyio.sleep(1)
            events.append("it is left to finish")
        except anyio.get_cancelled_exc_class():
            events.append("it is cancelled")
            raise

    schedule(work())
    await anyio.sleep(20)
    return events[0]


@behaviour
async def cancel_itself(trial: Trial) -> str:
    """A task cancels its own ID, from `schedule`"""
    return await _cancel_itself(trial, lambda coroutine: trial.scheduler.schedule("id", coroutine))


@behaviour
async def cancel_itself_later(trial: Trial) -> str:
    """A task cancels its own ID, from `schedule_later`"""
    return await _cancel_itself(trial, lambda coroutine: trial.scheduler.schedule_later(5, "id", coroutine))


@behaviour
async def again(trial: Trial) -> str:
    """A task schedules its own ID again"""
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            trial.scheduler.schedule_later(5, "id", work())

    trial.scheduler.schedule_later(5, "id", work())
    await anyio.sleep(60)
    return f"it is not scheduled, and runs {runs} time; logs {'a WARNING' if trial.logged(WARNING) else 'DEBUG'}"


@behaviour
async def cancel_and_again(trial: Trial) -> str:
    """A task cancels its own ID, and schedules it again"""
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            trial.scheduler.cancel("id")
            trial.scheduler.schedule_later(5, "id", work())
        await anyio.sleep(1)

    trial.scheduler.schedule_later(5, "id", work())
    await anyio.sleep(60)
    return f"ran {runs} times"


# Failures


@behaviour
async def failure(trial: Trial) -> str:
    """A task raises an exception"""
    sibling = Work()

    trial.scheduler.schedule(1, divide())
    trial.scheduler.schedule(2, sibling(5))
    await anyio.sleep(20)
    held = ", the ID is held" if 1 in trial.scheduler else ""
    return f"logs `{trial.logged(WARNING)}` with its traceback{held}; a sibling {sibling.story()}"


@behaviour
async def failure_later(trial: Trial) -> str:
    """The same, from `schedule_later`"""
    trial.scheduler.schedule_later(5, 1, divide())
    await anyio.sleep(20)
    return f"logs `{trial.logged(WARNING)}` with its traceback"


@behaviour
async def failure_after_cancel(trial: Trial) -> str:
    """A cancelled task fails in its clean-up"""

    async def work() -> None:
        try:
            await anyio.sleep(10)
        finally:
            raise ZeroDivisionError

    trial.scheduler.schedule(1, work())
    await anyio.sleep(1)
    trial.scheduler.cancel(1)
    await anyio.sleep(20)
    return f"logs `{trial.logged(WARNING)}` with its traceback"


@behaviour
async def forbidden(trial: Trial) -> str:
    """`discord.Forbidden` with the code 90001 (the user has blocked the bot)"""

    class BlockedError(Exception):
        code = 90001

    try:
        from discord.errors import Forbidden as Original
    except ModuleNotFoundError:
        error: Any = BlockedError()
    else:
        error = Original.__new__(Original)
        error.code = 90001

    async def work() -> None:
        raise error

    trial.scheduler.schedule(1, work())
    await settle()
    return f"logs {trial.logged(INFO).partition(':')[0]}"


# create_task


async def _create(trial: Trial, coroutine: Any, **options: Any) -> str:
    """Start a task (on trio in a task group), await it, and return a description of its outcome."""
    async with AsyncExitStack() as stack:
        if trial.backend == "trio":
            options["task_group"] = await stack.enter_async_context(anyio.create_task_group())
        try:
            return f"`{await trial.create_task(coroutine, **options)!r}`"
        except Exception as exception:
            return f"`{type(exception).__name__}`"
    raise AssertionError


@behaviour
async def create_task(trial: Trial) -> str:
    """`create_task(coro)`"""
    work = Work()
    refused = refusal(lambda: trial.create_task(work()))
    await settle()
    return work.story() if refused == "accepted" else f"{refused}: pass `task_group=...`"


@behaviour
async def create_task_result(trial: Trial) -> str:
    """`await create_task(coro)`, for a coroutine that returns 42"""

    async def work() -> int:
        return 42

    return await _create(trial, work())


@behaviour
async def create_task_failure(trial: Trial) -> str:
    """`await create_task(coro, name="n")`, for a coroutine that fails"""
    outcome = await _create(trial, divide(), name="n")
    await settle()
    return f"{outcome}; logs `{trial.logged()}`"


@behaviour
async def create_task_suppressed(trial: Trial) -> str:
    """The same with `suppressed_exceptions=(ZeroDivisionError,)`"""
    outcome = await _create(trial, divide(), suppressed_exceptions=(ZeroDivisionError,))
    await settle()
    return f"{outcome}; logs {trial.logged() or 'nothing'}"


@behaviour
async def create_task_options(trial: Trial) -> str:
    """`create_task(coro, event_loop=loop, name="n")`"""
    names = []

    async def work() -> None:
        names.append(name_of_task())

    options = {} if trial.backend == "trio" else {"event_loop": asyncio.get_running_loop()}
    await _create(trial, work(), name="n", **options)
    return f"a task with the name `{names[0]}`"


# Faults of programs


@fault
async def refreshers(trial: Trial) -> str:
    """A refresher schedules itself again, for an hour later (moved: with `on_conflict="follow"`). After six hours"""
    runs = {"now": 0, "later": 0}
    options: dict[str, Any] = {"on_conflict": "follow"} if trial.moved else {}

    async def refresh(name: str) -> None:
        runs[name] += 1
        await anyio.sleep(1)
        trial.scheduler.schedule_later(3600, name, refresh(name), **options)

    trial.scheduler.schedule("now", refresh("now"))
    trial.scheduler.schedule_later(60, "later", refresh("later"))
    await anyio.sleep(5.5 * 3600)
    assert runs["now"] == runs["later"]
    return "it has run once" if runs["now"] == 1 else f"it has run {runs['now']} times"


@fault
async def overdue(trial: Trial) -> str:
    """A ban that has expired while the program was down: its task lifts it, cancels its own ID, and writes the log"""
    done: list[str] = []

    async def lift() -> None:
        await anyio.sleep(1)
        done.append("lifted")
        trial.scheduler.cancel("ban")
        await anyio.sleep(1)
        done.append("logged")

    trial.scheduler.schedule_at(datetime.now(UTC) - timedelta(days=1), "ban", lift())
    await anyio.sleep(60)
    return ", ".join(done)


@fault
async def expiry(trial: Trial) -> str:
    """A slow mode is set again, by `cancel` and `schedule_at`, while the end of the one before is being carried out"""
    modes: dict[str, int] = {}
    expiries: dict[str, datetime] = {}

    async def end() -> None:
        await anyio.sleep(2)
        modes["#general"] = 0
        del expiries["#general"]

    async def slow(seconds: int, time: datetime) -> None:
        if "#general" in trial.scheduler:
            trial.scheduler.cancel("#general")
        expiries["#general"] = time
        modes["#general"] = seconds
        trial.scheduler.schedule_at(time, "#general", end())

    await slow(10, datetime.now(UTC) + timedelta(minutes=1))
    await anyio.sleep(61)
    await slow(20, datetime.now(UTC) + timedelta(hours=1))
    await anyio.sleep(60)
    return f"{modes['#general']} s, {'with its expiry' if expiries else 'its expiry is lost'}"


@fault
async def deletion(trial: Trial) -> str:
    """`if scheduler.cancel(number): del stored[number]`, for a number that is scheduled"""
    stored = {1: "every Monday"}
    trial.scheduler.schedule_later(60, 1, Work()())
    await settle()
    if trial.scheduler.cancel(1):
        del stored[1]
    return "stays stored, and comes back with the next start" if stored else "deleted"


@fault
async def countdowns(trial: Trial) -> str:
    """A component with a countdown is unloaded by `cancel_all()`, and loaded again"""
    counting = 0

    async def count() -> None:
        nonlocal counting
        counting += 1
        try:
            await anyio.sleep(600)
        finally:
            counting -= 1

    for _ in range(2):
        trial.scheduler.cancel_all()
        trial.scheduler.schedule_later(1, "countdown", count())
        await anyio.sleep(10)
    seen = counting
    await anyio.sleep(1200)
    return f"{seen} {'countdown runs' if seen == 1 else 'countdowns run'}"
