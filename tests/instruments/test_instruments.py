"""The calls of instruments, their order and context, and that instruments cannot affect tasks."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from instrument_recorder import Recorder

from anysched import DuplicateTaskError, ScheduledTask, Scheduler
from anysched.abc import FinishedRun, Instrument, StartedRun
from support import Gate, errors, fail, forever, is_closed, nothing, records, refuse_starts, until, value

pytestmark = pytest.mark.anyio

HOUR = 3600
HOOKS = [name for name in vars(Instrument) if not name.startswith("_")]


@pytest.fixture
def recorder(scheduler: Scheduler) -> Recorder:
    recorder = Recorder()
    scheduler.add_instrument(recorder)
    return recorder


async def test_a_task_that_returns(scheduler: Scheduler, recorder: Recorder) -> None:
    await scheduler.schedule("id", value, 1)
    assert recorder.events == [
        ("scheduled", "id", "pending"),
        ("started", "id", "running"),
        ("run finished", "id", "running"),
        ("ended", "id", "finished"),
    ]
    assert recorder.runs[0].failure is None


async def test_a_task_that_returns_an_exception_has_not_failed(scheduler: Scheduler, recorder: Recorder) -> None:
    await scheduler.schedule("id", value, ValueError())
    assert (recorder.runs[0].status, recorder.runs[0].failure) == (ScheduledTask.Status.FINISHED, None)


async def test_a_task_that_fails(scheduler: Scheduler, recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    failure = ValueError("broken")
    task = scheduler.schedule("id", fail, failure)
    await task.wait()
    assert recorder.events[2:] == [("run failed", "id", "running"), ("ended", "id", "failed")]
    assert recorder.runs[0].failure is failure
    assert len(errors(caplog)) == 1


async def test_a_running_task_that_is_cancelled(scheduler: Scheduler, recorder: Recorder) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    scheduler.cancel("id")
    await task.wait()
    assert recorder.events[2:] == [("run cancelled", "id", "cancelling"), ("ended", "id", "cancelled")]
    assert recorder.runs[0].failure is None


async def test_a_cancelled_task_whose_clean_up_fails(
    scheduler: Scheduler, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    failure = ValueError("clean-up")
    started = anyio.Event()

    async def work() -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise failure

    task = scheduler.schedule("id", work)
    await started.wait()
    scheduler.cancel("id")
    await task.wait()
    assert recorder.runs[0].failure is failure
    assert len(errors(caplog)) == 1


async def test_a_pending_task_that_is_dropped_has_no_run(scheduler: Scheduler, recorder: Recorder) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    scheduler.cancel("id")
    assert recorder.events == [("scheduled", "id", "pending"), ("ended", "id", "cancelled")]


async def test_tasks_that_are_dropped_on_closing() -> None:
    recorder = Recorder()
    async with Scheduler("test", instruments=[recorder]) as scheduler:
        scheduler.schedule_later(HOUR, "late", nothing)
        gate = Gate()
        scheduler.schedule("running", gate)
        await gate.started.wait()
    assert sorted(recorder.events[3:]) == [
        ("ended", "late", "cancelled"),
        ("ended", "running", "cancelled"),
        ("run cancelled", "running", "running"),
    ]


async def test_a_replaced_task_ends_before_its_successor_is_scheduled(scheduler: Scheduler, recorder: Recorder) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    scheduler.schedule_later(HOUR, "id", nothing, on_conflict="replace")
    assert [event for event, _, _ in recorder.events] == ["scheduled", "ended", "scheduled"]


async def test_a_call_that_finds_the_id_held(scheduler: Scheduler, recorder: Recorder) -> None:
    holder = scheduler.schedule_later(HOUR, "id", nothing)
    coroutine = nothing()
    assert scheduler.schedule("id", coroutine) is holder
    assert is_closed(coroutine)
    assert recorder.events[1:] == [("kept", "id", "pending")]


async def test_a_call_that_is_refused_is_not_reported(scheduler: Scheduler, recorder: Recorder) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    with pytest.raises(DuplicateTaskError):
        scheduler.schedule("id", nothing, on_conflict="error")
    with pytest.raises(ValueError, match="delay"):
        scheduler.schedule_later(float("nan"), "other", nothing)
    assert not scheduler.reschedule_later(1, "unknown")
    assert len(recorder.events) == 1


async def test_a_task_that_is_rescheduled(scheduler: Scheduler, recorder: Recorder) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    scheduler.reschedule_later(2 * HOUR, "id")
    scheduler.reschedule_at(datetime(2100, 1, 1, tzinfo=UTC), "id")
    assert recorder.events[1:] == [("rescheduled", "id", "pending")] * 2


async def test_a_task_that_is_paused_and_resumed(scheduler: Scheduler, recorder: Recorder) -> None:
    task = scheduler.schedule_later(HOUR, "id", nothing)
    assert task.pause()
    assert not task.pause()
    assert scheduler.resume("id")
    assert not scheduler.resume("id")
    assert recorder.events[1:] == [("paused", "id", "pending"), ("resumed", "id", "pending")]


async def test_each_run_of_a_recurring_task_and_its_one_end(
    scheduler: Scheduler, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    moments = [datetime(2020, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    await scheduler.schedule_at_times(moments, "id", fail, ValueError(), missed="all").wait()
    run = [("started", "id", "running"), ("run failed", "id", "running")]
    assert recorder.events == [("scheduled", "id", "pending"), *run * 3, ("ended", "id", "finished")]
    assert len(errors(caplog)) == 3


async def test_a_recurring_task_without_times_ends_after_it_was_scheduled(
    scheduler: Scheduler, recorder: Recorder
) -> None:
    scheduler.schedule_at_times([], "id", nothing)
    assert recorder.events == [("scheduled", "id", "pending"), ("ended", "id", "finished")]


async def test_a_start_that_the_event_loop_refuses_is_not_a_run(
    scheduler: Scheduler, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_starts(scheduler, ValueError("refused"))
    task = scheduler.schedule("id", nothing)
    await task.wait()
    assert recorder.events == [("scheduled", "id", "pending"), ("ended", "id", "failed")]
    assert len(errors(caplog)) == 1


# Context


async def test_a_context_variable_set_at_the_start_is_seen_by_the_run_and_at_its_end(scheduler: Scheduler) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[str] = []

    class Setter(Instrument):
        def run_started(self, task: ScheduledTask[Any], run: StartedRun, /) -> None:
            variable.set(f"run of {task.task_id}")

        def run_finished(self, task: ScheduledTask[Any], run: FinishedRun, /) -> None:
            seen.append(f"end: {variable.get()}")

    scheduler.add_instrument(Setter())

    def make() -> Any:
        seen.append(f"call: {variable.get()}")
        return work()

    async def work() -> None:
        await anyio.sleep(0)
        seen.append(f"coroutine: {variable.get()}")

    await scheduler.schedule("id", make)
    assert seen == ["call: run of id", "coroutine: run of id", "end: run of id"]
    await scheduler.schedule("other", work())
    assert seen[-1] == "end: run of other"
    assert variable.get() == "unset"


# Where they are added


async def test_children_report_to_their_own_instruments_and_to_their_parents() -> None:
    of_parent, of_child, added = Recorder(), Recorder(), Recorder()
    parent = Scheduler("parent", instruments=[of_parent])
    child = parent.child("child", instruments=[of_child])
    grandchild = child.child("grandchild")
    async with parent:
        parent.add_instrument(added)
        parent.schedule_later(HOUR, "parent", nothing)
        child.schedule_later(HOUR, "child", nothing)
        grandchild.schedule_later(HOUR, "grandchild", nothing)
        late = parent.child("late")
        late.schedule_later(HOUR, "late", nothing)

        def ids(recorder: Recorder) -> list[str]:
            return [task_id for _, task_id, _ in recorder.events]

        assert ids(of_parent) == ["parent", "child", "grandchild", "late"]
        assert ids(added) == ids(of_parent)
        assert ids(of_child) == ["child", "grandchild"]
        assert late.tasks["late"].scheduler_name == "parent.late"


async def test_an_instrument_of_parent_and_child_is_called_once(scheduler: Scheduler, recorder: Recorder) -> None:
    scheduler.add_instrument(recorder)
    child = scheduler.child("child", instruments=[recorder])
    child.schedule_later(HOUR, "id", nothing)
    assert len(recorder.events) == 1
    scheduler.remove_instrument(recorder)
    child.cancel("id")
    assert len(recorder.events) == 2
    child.remove_instrument(recorder)
    child.schedule_later(HOUR, "id", nothing)
    assert len(recorder.events) == 2


async def test_one_that_is_removed_is_not_called(scheduler: Scheduler, recorder: Recorder) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    scheduler.remove_instrument(recorder)
    gate.open.set()
    await task
    assert [event for event, _, _ in recorder.events] == ["scheduled", "started"]
    with pytest.raises(KeyError):
        scheduler.remove_instrument(recorder)


async def test_the_end_of_a_run_is_reported_to_those_who_know_of_its_start(
    scheduler: Scheduler, recorder: Recorder
) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    late = Recorder()
    scheduler.add_instrument(late)
    gate.open.set()
    await task
    assert [event for event, _, _ in recorder.events] == ["scheduled", "started", "run finished", "ended"]
    assert [event for event, _, _ in late.events] == ["ended"]


async def test_a_run_that_started_before_there_were_instruments(scheduler: Scheduler) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    recorder = Recorder()
    scheduler.add_instrument(recorder)
    gate.open.set()
    await task
    assert [event for event, _, _ in recorder.events] == ["ended"]


async def test_instruments_that_are_equal_or_not_hashable(scheduler: Scheduler) -> None:
    @dataclass
    class Counting(Instrument):
        calls: list[int] = field(default_factory=list, compare=False)

        def task_scheduled(self, task: ScheduledTask[Any], /) -> None:
            self.calls.append(1)

    one, other = Counting(), Counting()
    assert one == other
    scheduler.add_instrument(one)
    scheduler.add_instrument(other)
    scheduler.schedule_later(HOUR, "id", nothing)
    assert (one.calls, other.calls) == ([1], [1])
    scheduler.remove_instrument(other)
    scheduler.schedule_later(HOUR, "other", nothing)
    assert (one.calls, other.calls) == ([1, 1], [1])


async def test_a_method_that_is_an_attribute_of_the_object_is_called(scheduler: Scheduler) -> None:
    calls: list[Any] = []

    class Plain(Instrument):
        pass

    instrument = Plain()
    instrument.task_scheduled = calls.append  # type: ignore[method-assign]
    scheduler.add_instrument(instrument)
    task = scheduler.schedule_later(HOUR, "id", nothing)
    assert calls == [task]


@pytest.mark.parametrize("instrument", [None, Instrument, object()])
async def test_what_is_not_an_instrument_is_refused(scheduler: Scheduler, instrument: Any) -> None:
    for call in (
        lambda: scheduler.add_instrument(instrument),
        lambda: Scheduler("test", instruments=[instrument]),
        lambda: scheduler.child("child", instruments=[instrument]),
    ):
        with pytest.raises(TypeError, match=r"must be an instance of anysched\.abc\.Instrument"):
            call()


async def test_another_thread_is_refused(scheduler: Scheduler, recorder: Recorder) -> None:
    failures: list[Exception] = []

    def call() -> None:
        for method in (scheduler.add_instrument, scheduler.remove_instrument):
            try:
                method(recorder)
            except RuntimeError as failure:
                failures.append(failure)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(failures) == 2
    scheduler.schedule_later(HOUR, "id", nothing)
    assert len(recorder.events) == 1


async def test_the_base_class_does_nothing(scheduler: Scheduler) -> None:
    scheduler.add_instrument(Instrument())
    await scheduler.schedule("id", nothing)
    task = scheduler.schedule_later(HOUR, "id", nothing)
    for hook in HOOKS:
        arguments = [None] if hook.startswith("run") else []
        getattr(Instrument(), hook)(task, *arguments)
    assert task.status is ScheduledTask.Status.PENDING


# Instruments that raise


class Raising(Instrument):
    """Raises in one method."""

    def __init__(self, hook: str, failure: BaseException) -> None:
        self.calls = 0

        def method(*_: object) -> None:
            self.calls += 1
            raise failure

        setattr(self, hook, method)


async def use_all(scheduler: Scheduler) -> None:
    """Make every method of an instrument be called."""
    gate = Gate()
    task = scheduler.schedule_later(HOUR, "id", gate)
    scheduler.schedule("id", nothing)
    scheduler.pause("id")
    scheduler.resume("id")
    scheduler.reschedule_later(0, "id")
    gate.open.set()
    assert await task == "through"


@pytest.mark.parametrize("hook", HOOKS)
async def test_one_that_raises_is_logged_and_removed_and_the_task_goes_on(
    scheduler: Scheduler, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    failure = anyio.get_cancelled_exc_class() if hook == "run_started" else ValueError
    instrument, recorder = Raising(hook, _make(failure)), Recorder()
    scheduler.add_instrument(instrument)
    scheduler.add_instrument(recorder)
    await use_all(scheduler)
    await use_all(scheduler)
    assert instrument.calls == 1
    (record,) = records(caplog, level=40)
    assert record.getMessage() == f"Error in instrument {instrument!r}, which has been removed!"
    assert record.exc_info is not None
    assert record.__dict__["scheduler"] == "test"
    events = ["scheduled", "kept", "paused", "resumed", "rescheduled", "started", "run finished", "ended"]
    assert [event for event, _, _ in recorder.events] == events * 2
    with pytest.raises(KeyError):
        scheduler.remove_instrument(instrument)


def _make(failure: type[BaseException]) -> BaseException:
    try:
        return failure("broken")
    except TypeError:  # trio makes its own
        create: Any = failure
        cancelled: BaseException = create._create(source="unknown") if hasattr(create, "_create") else failure()
        return cancelled


async def test_one_that_raises_in_a_child_is_removed_from_the_parent(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    instrument = Raising("task_scheduled", ValueError())
    child = scheduler.child("child", instruments=[instrument])
    scheduler.add_instrument(instrument)
    child.schedule_later(HOUR, "id", nothing)
    scheduler.schedule_later(HOUR, "id", nothing)
    assert instrument.calls == 1
    assert [record.name for record in errors(caplog)] == ["anysched.test.child"]


class Quit(KeyboardInterrupt):
    """A request to end the process that pytest does not handle itself."""


@pytest.mark.parametrize("hook", ["run_started", "run_finished", "task_finished"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_request_to_end_the_process_propagates_and_nothing_is_left_behind(backend: str, hook: str) -> None:
    tasks: list[ScheduledTask[Any]] = []
    scheduler = Scheduler("test", instruments=[Raising(hook, Quit())])

    async def main() -> None:
        async with scheduler:
            tasks.append(scheduler.schedule("id", nothing()))
            tasks.append(scheduler.schedule_later(HOUR, "late", nothing()))
            await anyio.sleep_forever()

    with pytest.raises(BaseException) as info:
        anyio.run(main, backend=backend)
    failure = info.value
    while isinstance(failure, BaseExceptionGroup):
        (failure,) = failure.exceptions
    assert isinstance(failure, Quit)
    assert [task.status.name for task in tasks] == ["FAILED" if hook == "run_started" else "FINISHED", "CANCELLED"]
    assert scheduler.statistics().running == 0


# Instruments that use the scheduler


class Acting(Instrument):
    """Calls a function in one method, the first time."""

    def __init__(self, hook: str, function: Any) -> None:
        def method(task: ScheduledTask[Any], *_: object) -> None:
            setattr(self, hook, lambda *_: None)
            function(task)

        setattr(self, hook, method)


@pytest.mark.parametrize("hook", ["task_scheduled", "run_started", "run_finished"])
async def test_an_instrument_may_cancel_the_task(scheduler: Scheduler, hook: str) -> None:
    recorder = Recorder()
    instrument = Acting(hook, lambda task: task.cancel())
    scheduler.add_instrument(recorder)
    scheduler.add_instrument(instrument)
    task = scheduler.schedule_every(HOUR, "id", nothing, first=0)
    await task.wait()
    assert "id" not in scheduler
    # From inside of the run it frees the ID, and the run is left to finish.
    assert task.status.name == ("CANCELLED" if hook == "task_scheduled" else "FINISHED")
    assert [event for event, _, _ in recorder.events].count("ended") == 1
    assert scheduler.statistics().running == 0


async def test_an_instrument_may_schedule_the_next_task_under_the_id(scheduler: Scheduler) -> None:
    gate = Gate()
    instrument = Acting("task_finished", lambda _: scheduler.schedule("id", gate))
    scheduler.add_instrument(instrument)
    await scheduler.schedule("id", nothing)
    successor = scheduler.tasks["id"]
    gate.open.set()
    assert await successor == "through"


async def test_an_instrument_may_replace_the_task_that_ends(scheduler: Scheduler) -> None:
    successors: list[ScheduledTask[str]] = []

    def replace(_: ScheduledTask[Any]) -> None:
        successors.append(scheduler.schedule("id", value, "next", on_conflict="replace"))

    scheduler.add_instrument(Acting("run_finished", replace))
    task = scheduler.schedule_every(HOUR, "id", nothing, first=0)
    await task
    assert await successors[0] == "next"


async def test_an_instrument_may_remove_another(scheduler: Scheduler, recorder: Recorder) -> None:
    scheduler.add_instrument(Acting("run_started", lambda _: scheduler.remove_instrument(recorder)))
    await scheduler.schedule("id", nothing)
    assert [event for event, _, _ in recorder.events] == ["scheduled", "started"]


@pytest.mark.parametrize("hook", HOOKS)
async def test_an_instrument_may_remove_itself_and_add_another(
    scheduler: Scheduler, recorder: Recorder, hook: str
) -> None:
    successor = Recorder()

    def replace(_: ScheduledTask[Any]) -> None:
        scheduler.remove_instrument(instrument)
        scheduler.add_instrument(successor)

    instrument = Acting(hook, replace)
    scheduler.add_instrument(instrument)
    await use_all(scheduler)
    hooks = ["task_scheduled", "task_kept", "task_paused", "task_resumed", "task_rescheduled", "run_started"]
    position = [*hooks, "run_finished", "task_finished"].index(hook)
    expected = [event for event, _, _ in recorder.events][position + 1 :]
    if hook == "run_started":  # starts and ends come in pairs
        expected.remove("run finished")
    assert [event for event, _, _ in successor.events] == expected
    with pytest.raises(KeyError):
        scheduler.remove_instrument(instrument)


@pytest.mark.parametrize(
    ("action", "event"),
    [
        (lambda task: task.cancel(), "ended"),
        (lambda task: task.pause(), "paused"),
        (lambda task: task.reschedule_later(1), "rescheduled"),
    ],
)
async def test_all_hear_of_a_task_before_they_hear_what_an_instrument_has_done_to_it(
    scheduler: Scheduler, action: Any, event: str
) -> None:
    before, after = Recorder(), Recorder()
    for instrument in (before, Acting("task_scheduled", action), after):
        scheduler.add_instrument(instrument)
    scheduler.schedule_later(HOUR, "id", nothing)
    for recorder in (before, after):
        assert [name for name, _, _ in recorder.events] == ["scheduled", event]
    instruments = scheduler._registry.instruments
    assert instruments is not None
    assert instruments._announced == {}


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_method_that_is_a_coroutine_function_is_refused(scheduler: Scheduler, hook: str) -> None:
    async def method(*_: object) -> None:
        """Never called."""

    instrument: Instrument = type("Asynchronous", (Instrument,), {hook: method})()
    with pytest.raises(TypeError, match=f"called synchronously: its method {hook} must not be"):
        scheduler.add_instrument(instrument)
    await use_all(scheduler)


async def test_nothing_is_kept_of_tasks_that_have_ended(scheduler: Scheduler, recorder: Recorder) -> None:
    instruments = scheduler._registry.instruments
    assert instruments is not None
    for number in range(10):
        scheduler.schedule(number, forever)
    await until(lambda: scheduler.statistics().running == 10)
    assert len(instruments._runs) == 10
    scheduler.cancel_all()
    await scheduler.join()
    assert instruments._runs == {}
