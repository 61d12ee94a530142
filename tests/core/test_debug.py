"""In debug mode: where a task was scheduled, and functions that are refused in the call."""

import asyncio
import functools
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from inspect import Parameter, Signature, currentframe
from typing import Any
from unittest.mock import AsyncMock, Mock, create_autospec

import anyio
import pytest

from anysched import ScheduledTask, Scheduler, create_task
from anysched._core.backends import current
from recurrence import by_generator
from support import fail, is_closed, nothing, records, refuse_starts, settle, split_message, value

pytestmark = pytest.mark.anyio

HOUR = 3600.0
ERROR = ValueError("x")

Call = Callable[..., Any]


def line(offset: int = 0) -> str:
    """Return the location of the call, in the form of `split_message`."""
    frame = currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return f"test_debug.py:{frame.f_back.f_lineno + offset}"


@pytest.fixture
def debugging(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debug mode: on asyncio the event loop's, which is on in the test matrix; otherwise development mode."""
    if not anyio_backend[1].get("debug"):
        monkeypatch.setattr(current, "DEV_MODE", True)


@pytest.fixture
async def scheduler(anyio_backend: Any, debugging: None) -> AsyncIterator[Scheduler]:
    async with Scheduler("test") as scheduler:
        yield scheduler


# Where it was scheduled


Verb = Callable[[Scheduler], tuple[ScheduledTask[Any], str]]

VERBS: dict[str, Verb] = {
    "schedule": lambda scheduler: (scheduler.schedule("id", fail, ERROR), line()),
    "schedule a coroutine": lambda scheduler: (scheduler.schedule("id", fail(ERROR)), line()),
    "schedule_later": lambda scheduler: (scheduler.schedule_later(0, "id", fail, ERROR), line()),
    "schedule_at": lambda scheduler: (scheduler.schedule_at(scheduler.now(), "id", fail, ERROR), line()),
    "schedule_every": lambda scheduler: (scheduler.schedule_every(HOUR, "id", fail, ERROR, first=0), line()),
    "schedule_at_times": lambda scheduler: (
        scheduler.schedule_at_times([scheduler.now()], "id", fail, ERROR),
        line(-1),
    ),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=list(VERBS))
@pytest.mark.parametrize("child", [False, True], ids=["root", "child"])
async def test_a_failure_says_where_the_task_was_scheduled(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, child: bool, verb: Verb
) -> None:
    _, where = verb(scheduler.child("child") if child else scheduler)
    await settle()
    assert [split_message(record) for record in records(caplog)] == [("Error in task 'id'!", where)]


async def test_every_failure_of_a_recurring_task_says_so(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    task, where = VERBS["schedule_every"](scheduler)
    await settle()
    assert task.reschedule_later(0)  # which does not change where it was scheduled
    await settle()
    assert task.reschedule_at(scheduler.now())
    assert task.pause()
    assert task.resume()
    await settle()
    assert [split_message(record)[1] for record in records(caplog)] == [where] * 3


async def test_the_call_that_has_scheduled_the_holder_counts(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.schedule("id", fail, ERROR)
    kept = line(-1)
    scheduler.schedule("id", fail, ERROR)
    await settle()
    scheduler.schedule_later(HOUR, "id", fail, ERROR)
    scheduler.schedule("id", fail, ERROR, on_conflict="replace")
    replaced = line(-1)
    await settle()
    assert [split_message(record)[1] for record in records(caplog)] == [kept, replaced]


async def test_the_line_is_that_of_the_innermost_caller(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    async def inside() -> str:
        scheduler.schedule("id", fail, ERROR)
        return line(-1)

    where = await scheduler.schedule("outer", inside)
    await settle()
    assert [split_message(record)[1] for record in records(caplog)] == [where]


async def test_a_call_by_the_event_loop_itself_has_no_line(
    scheduler: Scheduler, anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    schedule: Call = scheduler.schedule
    await anyio.to_thread.run_sync(lambda: anyio.from_thread.run_sync(schedule, "id", fail, ERROR))
    if anyio_backend_name == "asyncio":
        asyncio.get_running_loop().call_soon(schedule, "id", fail, ERROR)
    await settle()
    count = 2 if anyio_backend_name == "asyncio" else 1
    assert [record.getMessage() for record in records(caplog)] == ["Error in task 'id'!"] * count


async def test_a_file_name_forges_no_lines(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    program = "scheduler.schedule('id', fail, ERROR)"
    exec(compile(program, "a\nERROR", "exec"), {"scheduler": scheduler, "fail": fail, "ERROR": ERROR})
    await settle()
    (record,) = records(caplog)
    assert record.getMessage() == r"Error in task 'id'! It was scheduled at a\nERROR:1."


async def test_other_ways_to_fail_say_so_as_well(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    async def cancelled() -> None:
        if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
            raise asyncio.CancelledError
        raise ERROR

    def broken() -> Any:
        yield scheduler.now()
        raise ERROR

    scheduler.schedule("stray", cancelled)
    scheduler.schedule_at_times(broken(), "times", nothing)
    where = [line(-2), line(-1)]
    await settle()
    assert sorted(split_message(record)[1] for record in records(caplog)) == where
    refuse_starts(scheduler, RuntimeError("full"))
    scheduler.schedule("id", nothing)
    where.append(line(-1))
    await settle()
    assert sorted(split_message(record)[1] for record in records(caplog)) == where


@pytest.fixture
async def no_debugging(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(current, "DEV_MODE", False)
    loop = asyncio.get_running_loop() if anyio_backend[0] == "asyncio" else None
    debug = loop is not None and loop.get_debug()
    if loop is not None:
        loop.set_debug(False)
    yield
    if loop is not None:
        loop.set_debug(debug)


async def test_no_line_without_debug_mode(no_debugging: None, caplog: pytest.LogCaptureFixture) -> None:
    async with Scheduler("test") as scheduler, anyio.create_task_group() as tg:
        await scheduler.schedule("id", fail, ERROR).wait()
        function: Any = print
        task = scheduler.schedule("id", function)
        await task.wait()
        assert isinstance(task.exception, TypeError)
        await create_task(fail(ERROR), name="task", task_group=tg).wait()
    assert [record.getMessage() for record in records(caplog)] == ["Error in task 'id'!"] * 2 + ["Error in task task!"]


async def test_create_task_says_where(
    debugging: None, anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as tg:
        create_task(fail(ERROR), task_group=tg, name="task")
        where = [line(-1)]
    if anyio_backend_name == "asyncio":
        task = create_task(fail(ERROR), name="task")
        where.append(line(-1))
        await asyncio.wait([task])
        await settle()
    assert [split_message(record) for record in records(caplog)] == [("Error in task task!", each) for each in where]


PROGRAM = """
import asyncio, logging, anyio
from anysched import Scheduler, create_task

logging.basicConfig(format="%(message)s")


async def fail():
    raise ValueError


def wrong():
    pass


async def main():
    async with Scheduler("test") as scheduler, anyio.create_task_group() as tg:
        await scheduler.schedule("id", fail).wait()
        for function, args in ((wrong, ()), (fail, (1,))):
            try:
                scheduler.schedule(function.__name__, function, *args)
            except TypeError as error:
                print(error)
        await create_task(fail(), task_group=tg, name="task").wait()
        await scheduler.join()


anyio.run(main, backend=BACKEND, backend_options=OPTIONS)
"""


@pytest.mark.parametrize(("backend", "options"), [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})])
@pytest.mark.parametrize("flags", [["-X", "dev"], []], ids=["dev", "usual"])
def test_development_mode(flags: list[str], backend: str, options: dict[str, Any]) -> None:
    if options and sys.platform == "win32":
        pytest.skip("uvloop does not run there")
    program = PROGRAM.replace("BACKEND", repr(backend)).replace("OPTIONS", repr(options))
    command = [sys.executable, *flags, "-W", "ignore::ResourceWarning", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    logged = sorted(text for text in result.stderr.splitlines() if text.startswith("Error in"))
    if flags:
        assert logged == [
            "Error in task 'id'! It was scheduled at <string>:18.",
            "Error in task task! It was scheduled at <string>:24.",
        ]
        assert len(result.stdout.splitlines()) == 2
    else:
        assert logged == [
            "Error in task 'fail'!",
            "Error in task 'id'!",
            "Error in task 'wrong'!",
            "Error in task task!",
        ]
        assert not result.stdout


# Functions that are refused in the call


def plain() -> None:
    """Do nothing."""


def several(number: int) -> Any:
    if number > 1:
        return 5
    if number:
        return "text"
    return None


def returns(coroutine: Any) -> Any:
    return coroutine


def sometimes(number: int) -> Any:
    return value(number) if number else None


def raises() -> Any:
    raise ERROR


async def two(first: int, second: int = 0) -> None:
    """Take one or two arguments."""


async def keyword(*, name: str) -> None:
    """Take a keyword."""


class Job:
    async def method(self, number: int) -> None:
        """Take a number."""

    def plain(self) -> None:
        """Do nothing."""

    @classmethod
    async def of_class(cls) -> None:
        """Do nothing."""

    @staticmethod
    async def static() -> None:
        """Do nothing."""

    async def __call__(self, number: int) -> None:
        """Take a number."""


class PlainJob:
    def __call__(self) -> None:
        """Do nothing."""


def with_number(function: Call) -> Call:
    """Call with another argument, like a decorator that opens a session."""

    @functools.wraps(function)
    async def wrapper(*args: Any) -> Any:
        return await function(*args, 1)

    return wrapper


def strict(function: Call) -> Call:
    """The same with its own signature."""

    @functools.wraps(function)
    async def wrapper(first: int) -> Any:
        return await function(first, 1)

    return wrapper


@with_number
async def decorated(first: int, second: int) -> None:
    """Take two arguments."""


@strict
async def decorated_strictly(first: int, second: int) -> None:
    """Take two arguments."""


async def declared(first: int, second: int) -> None:
    """Has its own signature."""


declared.__signature__ = Signature([Parameter("nothing", Parameter.KEYWORD_ONLY)])  # type: ignore[attr-defined]


decorated_declared = with_number(declared)


def unknown(first: "Unknown") -> "Unknown":  # type: ignore[name-defined]  # noqa: F821
    return two(first)


REFUSED: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "a plain function": (plain, (), "declare it with `async def`"),
    "a plain function with arguments": (plain, (1,), "declare it with `async def`"),
    "one that returns constants": (several, (1,), "declare it with `async def`"),
    "a lambda": (lambda: None, (), "declare it with `async def`"),
    "print": (print, ("text",), "anyio.to_thread.run_sync"),
    "sleep": (time.sleep, (5,), "anyio.to_thread.run_sync"),
    "a method": (Job().plain, (), "declare it with `async def`"),
    "an object": (PlainJob(), (), "declare it with `async def`"),
    "a partial function": (functools.partial(functools.partial(print), "text"), (), "declare it with `async def`"),
    "too few arguments": (two, (), "0 positional arguments: missing a required argument: 'first'"),
    "too many arguments": (two, (1, 2, 3), "3 positional arguments: too many positional arguments"),
    "none for one": (nothing, (1,), "1 positional argument: too many positional arguments"),
    "a keyword": (keyword, (), "missing a required"),
    "a method with too few": (Job().method, (), "'number'"),
    "a method without an object": (Job.method, (1,), "'number'"),
    "a class method with too many": (Job.of_class, (1,), "too many"),
    "a static method with too many": (Job.static, (1,), "too many"),
    "an object with too few": (Job(), (), "'number'"),
    "a partial function with too many": (functools.partial(two, 1, 2), (3,), "too many"),
    "a decorated function": (decorated_strictly, (1, 2), "too many"),
    "a function that returns a coroutine": (sometimes, (), "'number'"),
}

ACCEPTED: dict[str, Callable[[], tuple[Any, ...]]] = {
    "few arguments": lambda: (two, 1),
    "all arguments": lambda: (two, 1, 2),
    "a bound keyword": lambda: (functools.partial(keyword, name="x"),),
    "a partial function": lambda: (functools.partial(two, 1), 2),
    "a method": lambda: (Job().method, 1),
    "a method and its object": lambda: (Job.method, Job(), 1),
    "a class method": lambda: (Job.of_class,),
    "a static method": lambda: (Job.static,),
    "an object": lambda: (Job(), 1),
    "a lambda": lambda: (lambda: two(1),),
    "a function with unknown annotations": lambda: (unknown, 1),
    "a conditional function": lambda: (sometimes, 1),
    "a function in C": lambda: ([two(1)].pop,),
    "a decorated function": lambda: (decorated, 1),
    "a function that is decorated strictly": lambda: (decorated_strictly, 1),
    "a declared signature": lambda: (declared, 1, 2),
    "a copied signature": lambda: (decorated_declared, 1),
    "a cached function": lambda: (functools.lru_cache(unknown), 1),
    "a mock": lambda: (AsyncMock(), 1, 2, 3),
    "another mock": lambda: (Mock(side_effect=two), 1),
    "a mock with a specification": lambda: (create_autospec(two), 1),
    "a mock with a wrong call": lambda: (Mock(return_value=two(1)), 1, 2, 3),
}


def verbs(scheduler: Scheduler, function: Any, args: tuple[Any, ...]) -> list[Callable[[], object]]:
    return [
        lambda: scheduler.schedule("id", function, *args),
        lambda: scheduler.schedule_later(1, "id", function, *args),
        lambda: scheduler.schedule_at(scheduler.now(), "id", function, *args),
        lambda: scheduler.schedule_every(1, "id", function, *args),
        lambda: scheduler.schedule_at_times([scheduler.now()], "id", function, *args),
        lambda: scheduler.child("child").schedule("id", function, *args),
    ]


@pytest.mark.parametrize(("function", "args", "message"), REFUSED.values(), ids=list(REFUSED))
async def test_what_would_fail_at_the_start_is_refused_in_the_call(
    scheduler: Scheduler, function: Any, args: tuple[Any, ...], message: str
) -> None:
    holder = scheduler.schedule_later(HOUR, "id", nothing)
    for call in verbs(scheduler, function, args):
        with pytest.raises(TypeError) as info:
            call()
        assert message in str(info.value)
    assert dict(scheduler.tasks) == {"id": holder}
    assert holder.status.name == "PENDING"


async def test_what_is_refused_closes_the_times(scheduler: Scheduler) -> None:
    times = by_generator([], HOUR)
    function: Any = nothing
    with pytest.raises(TypeError, match="too many"):
        scheduler.schedule_at_times(times, "id", function, 1)
    assert list(times) == []


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=list(ACCEPTED))
async def test_what_may_succeed_is_accepted(scheduler: Scheduler, make: Callable[[], tuple[Any, ...]]) -> None:
    function, *args = make()
    task = scheduler.schedule("id", function, *args)
    await task
    assert task.status.name == "FINISHED"


async def test_a_function_that_raises_fails_at_the_start(scheduler: Scheduler) -> None:
    task = scheduler.schedule("id", raises)
    await task.wait()
    assert task.exception is ERROR


async def test_a_coroutine_has_no_signature_to_check(scheduler: Scheduler) -> None:
    coroutine: Any = value(1)
    with pytest.raises(TypeError, match="takes no arguments"):
        scheduler.schedule("id", coroutine, 1)
    assert is_closed(coroutine)
    assert await scheduler.schedule("id", value(1)) == 1


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated when the function is defined")
async def test_annotations_are_not_evaluated(scheduler: Scheduler) -> None:
    namespace: dict[str, Any] = {}
    exec("async def work(name: Unknown) -> Unknown: return name", namespace)
    assert await scheduler.schedule("id", namespace["work"], 1) == 1
    with pytest.raises(TypeError, match="missing a required argument: 'name'"):
        scheduler.schedule("id", namespace["work"])
