"""The public face of virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast, final

import anyio

from anysched._core.backends.current import current_backend
from anysched._core.clock import bind_clock, bound_clock, datetime_from_ns, ns_from_datetime, seconds_from_delay

from .timeline import Timeline, Waiter

__all__ = ["VirtualClock"]

_NOT_VIRTUAL = (
    "uvloop keeps its own time, in C, and cannot be virtual; asyncio's own event loop and trio can: "
    'pass clock.backend("asyncio") or clock.backend("trio") to anyio.run or to the fixture anyio_backend'
)


@final
class VirtualClock:
    """A clock for tests: a whole event loop runs in its time, on asyncio or trio.

    Every sleep, timeout and scheduled task waits for this clock and takes no real time::

        clock = VirtualClock(start=datetime(2025, 3, 1, tzinfo=UTC))
        name, options = clock.backend("trio")
        anyio.run(main, backend=name, backend_options=options)

    There are two ways to make time pass. With ``autojump`` it jumps to the next deadline whenever no task can run: code
    that sleeps for a month continues at once. Without, it stands still until `advance` or `travel_to` is called.

    In each run, monotonic time begins with 0 and wall time with ``start``. Both move together, except that `step_wall`
    and `suspend` change the wall time only.

    Time does not move while functions run in worker threads (`anyio.to_thread.run_sync`, `asyncio.to_thread`) or during
    a `hold`. Other real I/O, such as sockets, pipes and subprocesses, is not waited for when a timer is pending: use
    `hold` around it.

    A blocking portal is real I/O as well: between two calls from the other thread the event loop is idle, and with
    ``autojump`` all its timers would elapse. Use ``autojump=False`` and move time with ``portal.call(clock.advance,
    60)``.

    Methods that change something must be called in the event loop's thread.

    Args:
        start: The wall time at which each run begins; a naive time is interpreted as UTC.
        autojump: Whether time jumps to the next deadline by itself. Can be changed at any time, even during a run.
        recheck_interval: How often schedulers read the wall clock while a task waits for it, in virtual seconds. Never
            by default: steps of the clock are announced. Pass 30 to make them poll, as they do in real time.
        thread_timeout: How long, in real seconds, worker threads may hold time while nothing else happens. A thread
            that itself waits for virtual time (``from_thread.run(sleep, 60)``) would otherwise wait forever.
        idle_timeout: How long, in real seconds, to wait for something from outside (a thread, I/O, a signal) when every
            task is blocked and time cannot move, before `DeadlockError` is raised. It is raised at once if there is
            nothing that could come from outside and no timer. It is never raised during a `hold`, while worker threads
            run, or while a blocking portal waits for calls.
        busy_limit: How many consecutive iterations the event loop may take without becoming idle, before
            `NeverIdleError` is raised: by the call that waits for time to move (`advance`, `travel_to`, `settle`), if
            there is one. Otherwise, on asyncio it ends the run, and on trio it is raised in the task that keeps
            yielding.
        seed: Shuffle the tasks that are ready to run, where no order is guaranteed: on asyncio, tasks otherwise run in
            the order in which they became ready, and on trio the order differs from run to run. The same seed gives
            the same order. The guarantees of `anysched` still hold: tasks start in due order.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an interval, timeout or limit is not positive.
    """

    def __init__(
        self,
        start: datetime = datetime(2025, 1, 1, tzinfo=UTC),
        *,
        autojump: bool = True,
        recheck_interval: float = math.inf,
        thread_timeout: float = 2.0,
        idle_timeout: float = 5.0,
        busy_limit: int = 100_000,
        seed: int | None = None,
    ) -> None:
        start_ns = ns_from_datetime(start)
        if seed is not None and not isinstance(seed, int):
            raise TypeError(f"seed must be an integer, not {type(seed).__name__}: {seed!r}")
        for name, value in (
            ("recheck_interval", recheck_interval),
            ("thread_timeout", thread_timeout),
            ("idle_timeout", idle_timeout),
            ("busy_limit", busy_limit),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be positive, not {value!r}")
        self._timeline = Timeline(start_ns, autojump, recheck_interval, thread_timeout, idle_timeout, busy_limit, seed)

    def __repr__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"<VirtualClock {self.now().isoformat()} after {self.monotonic()} s{seed}>"

    @staticmethod
    def current() -> VirtualClock:
        """Return the virtual clock of the running event loop.

        For functions that do not get it as an argument, and for Hypothesis, which refuses function-scoped fixtures.

        Raises:
            RuntimeError: if no event loop runs in this thread, or its time is real. It always is with uvloop.
        """
        time_source = current_backend().time_source
        clock = bound_clock(time_source)
        if isinstance(clock, VirtualClock):
            return clock
        raise RuntimeError(f"the time of the running event loop is real ({time_source!r}). {_NOT_VIRTUAL}")

    @staticmethod
    def of_backend(backend: object) -> VirtualClock:
        """Return the clock that a backend was created from. A backend is the value of the fixture ``anyio_backend``.

        Args:
            backend: What `backend` returned.

        Raises:
            RuntimeError: if it was not created by a virtual clock.
        """
        # anyio accepts a name, or a name with options.
        options: dict[str, Any] = {}
        if isinstance(backend, tuple) and isinstance(cast("tuple[object, ...]", backend)[-1], dict):
            options = cast("tuple[str, dict[str, Any]]", backend)[-1]
        time_source = options.get("loop_factory") or options.get("clock")
        clock = None if time_source is None else bound_clock(time_source)
        if isinstance(clock, VirtualClock):
            return clock
        raise RuntimeError(
            f"the backend {backend!r} has no virtual clock. Opt in, in the test module or its conftest.py: "
            f"`from anysched.testing import virtual_anyio_backend as anyio_backend`. (Note that {_NOT_VIRTUAL}.)"
        )

    def backend(self, name: Literal["asyncio", "trio"], **options: Any) -> tuple[str, dict[str, Any]]:
        """Return a backend that runs in the time of this clock: its name and options for anyio.

        Pass them to ``anyio.run(main, backend=name, backend_options=options)``, or return them from a fixture
        ``anyio_backend``. They can be used for any number of consecutive runs. Time is reset at the start of each.

        Args:
            name: The event loop.
            options: Other options of anyio for it, such as ``debug=True``.

        Raises:
            ValueError: if there is no such backend, if it cannot be virtual (uvloop), or if an option would make it
                real.
            ModuleNotFoundError: if trio is not installed.
        """
        if name == "asyncio":
            if options.pop("use_uvloop", False):
                raise ValueError(_NOT_VIRTUAL)
            return name, {**_only(options, "loop_factory"), "loop_factory": self._loop_factory()}
        if name == "trio":
            from .trio import TrioVirtualClock

            instruments = options.pop("instruments", ())
            time = TrioVirtualClock(self._timeline)
            bind_clock(time.clock, self)
            return name, {**_only(options, "clock"), "clock": time.clock, "instruments": [time, *instruments]}
        raise ValueError(_NOT_VIRTUAL if name == "uvloop" else f'the backend must be "asyncio" or "trio", not {name!r}')

    def _loop_factory(self) -> Callable[[], object]:
        from .asyncio import VirtualEventLoop

        def loop_factory() -> VirtualEventLoop:
            loop = VirtualEventLoop(self._timeline)
            bind_clock(loop, self)
            return loop

        bind_clock(loop_factory, self)  # for `of_backend`
        return loop_factory

    # Reading it

    @property
    def start(self) -> datetime:
        """The wall time at which each run begins (aware UTC)."""
        return datetime_from_ns(self._timeline.start_ns)

    @property
    def autojump(self) -> bool:
        """Whether time jumps to the next deadline by itself when no task can run."""
        return self._timeline.autojump

    @autojump.setter
    def autojump(self, autojump: bool) -> None:
        self._timeline.autojump = autojump

    @property
    def recheck_interval(self) -> float:
        """How often schedulers read the wall clock while a task waits for it, in seconds; infinity means never."""
        return self._timeline.recheck_interval

    @property
    def seed(self) -> int | None:
        """A number that determines how ready tasks are shuffled, or `None` if they are not."""
        return self._timeline.seed

    def now(self) -> datetime:
        """Return the wall time (aware UTC)."""
        return datetime_from_ns(self._timeline.time_ns())

    def time_ns(self) -> int:
        """Return the wall time in nanoseconds of UTC since 1970, like `time.time_ns`, in whole microseconds."""
        return self._timeline.time_ns()

    def monotonic(self) -> float:
        """Return the monotonic time in seconds since the run began, like `anyio.current_time`."""
        return self._timeline.monotonic()

    def subscribe(self, stepped: Callable[[], object]) -> Callable[[], object]:
        """Call ``stepped`` at each announced step of the wall clock. Used by schedulers.

        Returns:
            A function that ends the subscription. It also ends when the clock is used for another run.
        """
        return self._timeline.subscribe(stepped)

    # Moving it

    async def advance(self, delay: float | timedelta) -> None:
        """Let time pass: stop at every deadline on the way and return when everything due by then is done.

        "Done" means that every other task is blocked. So tasks run in order and each reads the time for which it was
        due, on both backends, with and without ``autojump``.

        Args:
            delay: How long, in seconds or as a `timedelta`. With 0 this is `settle`.

        Raises:
            NeverIdleError: if a task keeps yielding, so that time cannot move.
            RuntimeError: if this is not the clock of the running event loop, or if the caller holds time.
            TypeError: if the delay is neither a number nor a `timedelta`.
            ValueError: if it is negative, NaN or infinite.
        """
        seconds = seconds_from_delay(delay)
        if seconds < 0:
            raise ValueError(f"time cannot go back: {delay!r}. To set the wall clock back, use step_wall")
        self._check_running("advance")
        self._check_holds()
        # Rounded to nanoseconds, so that 0.1 and 0.2 are 0.3.
        await self._wait(round(self.monotonic() + seconds, 9))

    async def travel_to(self, time: datetime) -> None:
        """Let time pass like `advance`, until the wall clock shows a time.

        Args:
            time: The time; a naive time is interpreted as UTC.

        Raises:
            NeverIdleError: if a task keeps yielding, so that time cannot move.
            RuntimeError: if this is not the clock of the running event loop, or if the caller holds time.
            TypeError: if it is not a `datetime`.
            ValueError: if it is in the past.
        """
        target_ns = ns_from_datetime(time)
        if target_ns < self.time_ns():
            raise ValueError(
                f"it is {self.now()} already: time cannot go back to {time}. Use step_wall to set the wall clock"
            )
        await self.settle()
        # Several times if the wall clock is stepped on the way.
        while (left_ns := target_ns - self.time_ns()) > 0:
            # Past 2**33 s, 272 years, a float cannot express the next microsecond: time must move nevertheless.
            await self.advance(max(left_ns / 1e9, math.ulp(self.monotonic())))

    async def settle(self) -> None:
        """Wait until every other task is blocked, like `anyio.wait_all_tasks_blocked`, without moving virtual time.

        This also waits for functions that run in worker threads. (anyio's function sleeps for 0.1 s on asyncio, so it
        needs ``autojump`` and moves time.)

        Raises:
            NeverIdleError: if a task keeps yielding.
            RuntimeError: if this is not the clock of the running event loop.
        """
        self._check_running("settle")
        await self._wait(-math.inf)

    async def _wait(self, target: float) -> None:
        event = anyio.Event()
        waiter = Waiter(target, event.set)
        self._timeline.add(waiter)
        try:
            await event.wait()
        finally:
            self._timeline.discard(waiter)
        if waiter.error is not None:
            raise waiter.error

    def step_wall(self, delta: float | timedelta, *, notify: bool = True) -> None:
        """Set the wall clock forward or back, like NTP or an operator. Monotonic time is not affected.

        Args:
            delta: How far, in seconds or as a `timedelta`; negative means back.
            notify: Whether to notify schedulers at once. In real time they find out when they read the clock again,
                after at most 30 seconds. With `False` they find out after 30 seconds of virtual time, or with a finite
                ``recheck_interval``, when they read it again.

        Raises:
            RuntimeError: if this is not the clock of the running event loop.
            TypeError: if the step is neither a number nor a `timedelta`.
            ValueError: if it is NaN or infinite.
        """
        seconds = seconds_from_delay(delta)
        self._check_running("step_wall")
        self._timeline.step_wall(round(seconds * 1e6) * 1_000, notify)

    def suspend(self, delta: float | timedelta, *, notify: bool = True) -> None:
        """Suspend the machine: the wall clock moves, monotonic time does not, and no task runs.

        Args:
            delta: How long, in seconds or as a `timedelta`.
            notify: Whether to notify schedulers at once; see `step_wall`.

        Raises:
            RuntimeError: if this is not the clock of the running event loop.
            TypeError: if the duration is neither a number nor a `timedelta`.
            ValueError: if it is negative, NaN or infinite.
        """
        if seconds_from_delay(delta) < 0:
            raise ValueError(f"a machine cannot be suspended for a negative time: {delta!r}")
        self.step_wall(delta, notify=notify)

    # Keeping it

    @contextmanager
    def hold(self) -> Generator[None]:
        """Keep time from moving while the context is active, for real I/O.

        Time does not jump, and `advance` and `travel_to` in other tasks wait until the hold is over. Timeouts are
        virtual and cannot interrupt work during a hold.
        """
        holder = _current_task()
        self._timeline.holds.append(holder)
        try:
            yield
        finally:
            self._timeline.holds.remove(holder)

    def patch_datetime(self) -> AbstractContextManager[None]:
        """Make ``datetime.now()``, ``time.time()`` and the like show this clock's wall time while the context is active.

        This needs the package time-machine: install ``anysched[time-machine]``. It affects the whole process, but not
        its time zone.

        Raises:
            ModuleNotFoundError: if time-machine is not installed.
        """
        from .time_machine import travel_along

        return travel_along(self._timeline)

    def _check_running(self, method: str) -> None:
        try:
            running = bound_clock(current_backend().time_source) is self
        except anyio.NoEventLoopError:
            running = False
        if not running:
            raise RuntimeError(
                f"{method}() was called where this clock does not keep the time. Call it in an event loop that was started "
                "with clock.backend(...), from another thread through portal.call or anyio.from_thread"
            )

    def _check_holds(self) -> None:
        if _current_task() in self._timeline.holds:
            raise RuntimeError("time cannot move inside `with clock.hold():`: the caller would wait for it forever")


def _only(options: dict[str, Any], forbidden: str) -> dict[str, Any]:
    if forbidden in options:
        raise ValueError(f"the option {forbidden!r} is what makes the time virtual: it cannot be another one")
    return options


def _current_task() -> object:
    """Return the running native task, or `None`."""
    try:
        return current_backend().current_task()
    except RuntimeError:  # no event loop, or not in a task of it
        return None
