"""trio in virtual time. All trio specifics are here; the module is imported when this backend is requested."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from typing import NoReturn, final

from trio.abc import Instrument
from trio.lowlevel import Task, add_instrument, current_root_task, current_statistics, remove_instrument
from trio.testing import MockClock, active_thread_count

from .blocked import Outside, describe, waits_for_portal
from .timeline import Timeline
from .trio_shuffle import seed_trio, unseed_trio

__all__ = ["TrioVirtualClock"]

FOREVER = 1e9
"""Real seconds. trio itself limits each wait to a day."""

IO_STATISTICS = ("tasks_waiting_read", "tasks_waiting_write", "tasks_waiting", "tasks_waiting_overlapped")
"""The numbers of tasks that wait for I/O, by the names that they have on one platform or another."""

WATCHED_ITERATIONS = 20
"""For how many iterations to watch which tasks run, to find the one that never blocks."""


@final
class TrioVirtualClock(Instrument):
    """Makes a run of trio use virtual time.

    trio calls its `MockClock`, and no other clock, when it is idle: when no task can run, no I/O is ready and no task
    waits in `trio.testing.wait_all_tasks_blocked`. So this is a `MockClock` with all its methods replaced. The time and
    the jumps are the timeline's: the ``jump`` of the `MockClock` adds a difference of floats, which does not always
    give the deadline.

    Args:
        timeline: The time to use. It is reset at the start of each run.

    Attributes:
        clock: The clock to pass to trio, together with this as an instrument.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._running = False
        self._deadline = 0.0
        self._idle = False
        self._waited = False
        self._watcher: Watcher | None = None
        self.clock = clock = MockClock(autojump_threshold=0)
        clock.current_time = timeline.monotonic  # type: ignore[method-assign]
        clock.start_clock = self._start  # type: ignore[method-assign]
        clock.deadline_to_sleep_time = self._sleep_time  # type: ignore[method-assign]
        clock._autojump = self._jump  # type: ignore[method-assign]  # private to trio

    # The clock

    def _start(self) -> None:
        self._timeline.begin(lambda: self._running)
        self._running = True
        if self._timeline.seed is not None:
            seed_trio(self._timeline.seed)
        self._watcher = None
        self.clock.autojump_threshold = 0

    def _sleep_time(self, deadline: float) -> float:
        """Record the next deadline. Called by trio when no task can run, before it looks for I/O."""
        self._deadline = deadline
        self._idle = deadline > self._timeline.monotonic()
        return FOREVER if self._idle else 0.0

    def _jump(self) -> None:
        """Called by trio when it is idle."""
        self._waited = False
        if self._watcher is not None:
            remove_instrument(self._watcher)
            self._watcher = None
        seconds = self._timeline.idle(self._deadline, active_thread_count(), self._outside)
        if seconds is None:
            self._report_deadlock()
        elif seconds:
            # How long trio waits for I/O before it calls this the next time.
            self.clock.autojump_threshold = seconds

    # Deadlocks

    def _outside(self) -> Outside:
        """Return what might wake a task when all are blocked."""
        if any(waits_for_portal(task.coro) for task in _tasks()[:1]):
            return "portal"
        statistics = current_statistics().io_statistics
        # trio itself waits for one file: the socket that wakes it.
        if sum(getattr(statistics, name, 0) for name in IO_STATISTICS) > 1:
            return "something"
        handlers = map(signal.getsignal, signal.valid_signals())
        if any(getattr(handler, "__module__", None) == "trio._signals" for handler in handlers):
            return "something"
        return "something" if any(map(_is_foreign, self._timeline.other_threads)) else "nothing"

    def _report_deadlock(self) -> None:
        """Raise an error where the main task is blocked, or else in another task."""
        tasks = _tasks()
        error = self._timeline.deadlock(self._deadline, [describe(task.name, task.coro) for task in tasks])

        def raise_error(*_: object) -> NoReturn:
            raise error

        for task in tasks:
            # Private to trio, which so raises KeyboardInterrupt in its main task.
            if task._abort_func is not None:
                task._attempt_abort(raise_error)
                return
        raise error

    # The instrument

    def before_io_wait(self, timeout: float) -> None:
        """Count the iterations in which a task can run."""
        if self._waited:  # and `_jump` was not called: I/O was ready
            self._waited = False
            self._timeline.io_happened()
        if self._idle:
            self._idle = False
        elif self._timeline.note_busy_iteration(active_thread_count):
            if self._watcher is None:
                self._watcher = Watcher()
                add_instrument(self._watcher)
            self._watch(self._watcher)

    def after_io_wait(self, timeout: float) -> None:
        """Have trio call `_jump` at once when it is idle the next time."""
        if self.clock.autojump_threshold > 0:
            self.clock.autojump_threshold = 0
            self._waited = True

    def after_run(self) -> None:
        """Called when the run has ended: the clock can be used for another run."""
        self._running = False
        if self._timeline.seed is not None:
            unseed_trio()

    def _watch(self, watcher: Watcher) -> None:
        watcher.iterations += 1
        if watcher.iterations > WATCHED_ITERATIONS:
            self._watcher = None
            remove_instrument(watcher)
            busiest_tasks = watcher.busiest_tasks()
            error = self._timeline.report_never_idle(tuple(task.name for task in busiest_tasks))
            if error is not None:
                add_instrument(RaiseInTask(busiest_tasks[0], error))


def _tasks() -> list[Task]:
    """Return the main task and its descendants, these by their names."""
    root = current_root_task()
    assert root is not None
    # trio's own tasks are in the nurseries that enclose the nursery of the main task.
    nurseries = root.child_nurseries[-1:]
    tasks: list[Task] = []
    while nurseries:
        children = [task for nursery in nurseries for task in nursery.child_tasks]
        tasks += children
        nurseries = [nursery for task in children for nursery in task.child_nurseries]
    return [*tasks[:1], *sorted(tasks[1:], key=lambda task: task.name)]


def _is_foreign(thread: threading.Thread) -> bool:
    """Return whether a thread is not one of those that trio keeps for its workers."""
    target = getattr(thread, "_target", None)
    return getattr(target, "__module__", None) != "trio._core._thread_cache"


@final
class Watcher(Instrument):
    """Counts how often each task runs.

    Attributes:
        iterations: The number of iterations watched.
    """

    def __init__(self) -> None:
        self.iterations = 0
        self._steps: Counter[Task] = Counter()

    def before_task_step(self, task: Task) -> None:
        """Count a step."""
        self._steps[task] += 1

    def busiest_tasks(self) -> list[Task]:
        """Return the tasks that ran most often."""
        most = max(self._steps.values())
        return [task for task, steps in self._steps.items() if steps == most]


@final
class RaiseInTask(Instrument):
    """Raises an exception in a task, at its next step.

    Raised in trio's own loop, it would be an internal error of trio, and hang a test runner that hosts trio as a guest.
    """

    def __init__(self, task: Task, error: Exception) -> None:
        self._task = task
        self._error = error

    def before_task_step(self, task: Task) -> None:
        """Make trio throw into the task instead of sending, as it does itself when a task yields something unknown."""
        if task is self._task:
            remove_instrument(self)
            # Private to trio.
            task._next_send_fn = task.coro.throw
            task._next_send = self._error
