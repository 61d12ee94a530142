"""trio in virtual time. All trio specifics are here; the module is imported when this backend is requested."""

from __future__ import annotations

from collections import Counter
from typing import final

from trio.abc import Instrument
from trio.lowlevel import Task, add_instrument, remove_instrument
from trio.testing import MockClock, active_thread_count

from .timeline import Timeline

__all__ = ["TrioVirtualClock"]

FOREVER = 1e9
"""Real seconds. trio itself limits each wait to a day."""

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
        seconds = self._timeline.idle(self._deadline, active_thread_count())
        if seconds:
            # How long trio waits for I/O before it calls this the next time.
            self.clock.autojump_threshold = seconds

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

    def _watch(self, watcher: Watcher) -> None:
        watcher.iterations += 1
        if watcher.iterations > WATCHED_ITERATIONS:
            self._watcher = None
            remove_instrument(watcher)
            busiest_tasks = watcher.busiest_tasks()
            error = self._timeline.report_never_idle(tuple(task.name for task in busiest_tasks))
            if error is not None:
                add_instrument(RaiseInTask(busiest_tasks[0], error))


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
