"""The queue of due times."""

import heapq
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from anysched._core import timer_queue as timer_queue_module
from anysched._core.timer_queue import QueueGroup, Timer, TimerQueue

UNBOUNDED = 1 << 60


class Named(Timer):
    __slots__ = ("name",)

    def __init__(self, name: int) -> None:
        self.name = name
        self._segment = None


def drain(queue: TimerQueue[Named]) -> list[int]:
    names = []
    while queue.prune_top(UNBOUNDED) and queue:
        names.append(queue.pop().name)
    return names


@pytest.fixture
def queue() -> TimerQueue[Named]:
    return TimerQueue()


def test_an_empty_queue(queue: TimerQueue[Named]) -> None:
    assert not queue
    assert queue.peek() is None
    assert queue.prune_top(5) == 5
    Named(0)._leave_queue()


def test_many_timers_come_out_in_order(queue: TimerQueue[Named]) -> None:
    count = 5000
    for number in range(1, count + 1):
        queue.push(Named(number), number * 7919 % 1000, number)
    assert len(queue) == queue.entries == count
    assert drain(queue) == sorted(range(1, count + 1), key=lambda number: (number * 7919 % 1000, number))


def test_surfacing_takes_no_more_than_the_steps_it_is_given(queue: TimerQueue[Named]) -> None:
    timers = [Named(number) for number in range(1, 101)]
    for timer in timers:
        queue.push(timer, timer.name, timer.name)
    for timer in timers:
        queue.move(timer, timer.name + 1000, timer.name + 1000)
    for _ in range(10):
        assert queue.prune_top(9) == 0
    assert queue.prune_top(20) == 10
    first = queue.peek()
    assert first is timers[0]


def operations(run: Callable[[int], Any], sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the average number of heap operations per timer, for each of two sizes."""
    counts = []
    for size in sizes:
        count = 0

        def counted(function: Any) -> Any:
            def call(*args: Any) -> Any:
                nonlocal count
                count += len(args[0]) if function.__name__ == "heapify" else 1
                return function(*args)

            return call

        with monkeypatch.context() as patch:
            for name in ("heapify", "heappop", "heappush", "heapreplace"):
                patch.setattr(timer_queue_module, name, counted(getattr(timer_queue_module, name)))
            run(size)
        counts.append(count / size)
    return counts


def push_all(size: int) -> tuple[TimerQueue[Named], list[Named]]:
    queue: TimerQueue[Named] = TimerQueue()
    timers = [Named(number) for number in range(1, size + 1)]
    for timer in timers:
        queue.push(timer, timer.name * 7919 % 100_003, timer.name)
    return queue, timers


def push_and_pop(size: int) -> None:
    queue, _ = push_all(size)
    drain(queue)


def push_and_discard(size: int) -> None:
    queue, timers = push_all(size)
    for timer in timers:
        timer._leave_queue()
    assert queue.entries <= 1


def debounce(size: int) -> None:
    queue, timers = push_all(size)
    for step in range(1, 4):
        for timer in timers:
            queue.move(timer, step * 1_000_000 + timer.name * 7919 % 100_003, step * size + timer.name)
    assert queue.entries == size


def move_about(size: int) -> None:
    queue, timers = push_all(size)
    for step in range(1, 6):
        for timer in timers:
            key = timer.name * 7919 % 100_003
            queue.move(timer, -key if step % 2 else key, step * size + timer.name)
    assert queue.entries <= 2 * size + timer_queue_module.SEGMENT_SIZE


@pytest.mark.slow
@pytest.mark.parametrize("run", [push_and_pop, push_and_discard, debounce, move_about])
def test_the_work_for_one_timer_does_not_grow_with_their_number(
    run: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = operations(run, (1_000, 100_000), monkeypatch)
    assert large <= small * 1.5 + 1


def test_a_sweep_concerns_one_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    heapify = heapq.heapify

    def counted(heap: list[Any]) -> None:
        nonlocal largest
        largest = max(largest, len(heap))
        heapify(heap)

    monkeypatch.setattr(timer_queue_module, "heapify", counted)
    push_and_discard(100_000)
    assert 0 < largest <= timer_queue_module.SEGMENT_SIZE


class QueueMachine(RuleBasedStateMachine):
    """The queue compared with a dictionary, with small segments, so that there are many."""

    timers = Bundle("timers")

    def __init__(self) -> None:
        super().__init__()
        self.queue: TimerQueue[Named] = TimerQueue()
        self.model: dict[Named, tuple[int, int]] = {}
        self.number = 0
        self.size, timer_queue_module.SEGMENT_SIZE = timer_queue_module.SEGMENT_SIZE, 4

    def teardown(self) -> None:
        timer_queue_module.SEGMENT_SIZE = self.size

    def next_number(self) -> int:
        self.number += 1
        return self.number

    @rule(target=timers, key=st.integers(0, 9))
    def push(self, key: int) -> Named:
        timer = Named(self.next_number())
        self.queue.push(timer, key, timer.name)
        self.model[timer] = key, timer.name
        return timer

    @rule(timer=consumes(timers))
    def discard(self, timer: Named) -> None:
        timer._leave_queue()
        self.model.pop(timer, None)

    @rule(timer=timers, key=st.integers(0, 9))
    def move(self, timer: Named, key: int) -> None:
        if timer in self.model:
            number = self.next_number()
            self.queue.move(timer, key, number)
            self.model[timer] = key, number

    @rule(timer=timers, key=st.integers(0, 9))
    def push_again(self, timer: Named, key: int) -> None:
        if timer not in self.model:
            number = self.next_number()
            self.queue.push(timer, key, number)
            self.model[timer] = key, number

    @rule(steps=st.integers(1, 3))
    def surface_a_little(self, steps: int) -> None:
        self.queue.prune_top(steps)

    @rule()
    def pop(self) -> None:
        self.queue.prune_top(UNBOUNDED)
        if self.model:
            first = min(self.model, key=lambda timer: self.model[timer])
            assert self.queue.peek() is first
            assert first._sequence == self.model[first][1]
            assert self.queue.pop() is first
            del self.model[first]
        else:
            assert self.queue.peek() is None

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == len(self.model)
        # No segment is swept before it needs to be, nor later: the dead never outnumber the living.
        assert self.queue.entries <= 2 * len(self.model) + 1


QueueMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestQueueMachine = pytest.mark.slow(QueueMachine.TestCase)


def test_a_segment_that_takes_over_the_first_timer_of_a_dissolved_one(queue: TimerQueue[Named]) -> None:
    size = timer_queue_module.SEGMENT_SIZE
    timers = [Named(number) for number in range(1, 4 * size)]
    for timer in timers:
        queue.push(timer, timer.name, timer.name)
    for timer in timers[1:size]:
        timer._leave_queue()
    for number in range(4 * size, 7 * size):
        queue.push(Named(number), number, number)
    assert drain(queue) == [1, *range(size + 1, 7 * size)]


class GroupMachine(RuleBasedStateMachine):
    """A group of queues compared with a dictionary."""

    timers = Bundle("timers")

    def __init__(self) -> None:
        super().__init__()
        self.group: QueueGroup[Named] = QueueGroup()
        self.queues: list[TimerQueue[Named]] = [TimerQueue() for _ in range(3)]
        self.model: dict[Named, tuple[int, int, int]] = {}
        self.number = 0
        self.size, timer_queue_module.SEGMENT_SIZE = timer_queue_module.SEGMENT_SIZE, 4

    def teardown(self) -> None:
        timer_queue_module.SEGMENT_SIZE = self.size

    def put(self, timer: Named, which: int, key: int) -> None:
        self.number += 1
        self.group.push(self.queues[which], timer, key, self.number)
        self.model[timer] = key, self.number, which

    @rule(target=timers, which=st.integers(0, 2), key=st.integers(0, 9))
    def push(self, which: int, key: int) -> Named:
        timer = Named(self.number)
        self.put(timer, which, key)
        return timer

    @rule(timer=timers, which=st.integers(0, 2), key=st.integers(0, 9))
    def push_again(self, timer: Named, which: int, key: int) -> None:
        if timer not in self.model:
            self.put(timer, which, key)

    @rule(timer=timers)
    def discard(self, timer: Named) -> None:
        timer._leave_queue()
        self.model.pop(timer, None)

    @rule(timer=timers, key=st.integers(0, 9))
    def move(self, timer: Named, key: int) -> None:
        if timer in self.model:
            self.number += 1
            which = self.model[timer][2]
            self.group.move(self.queues[which], timer, key, self.number)
            self.model[timer] = key, self.number, which

    @rule(steps=st.integers(1, 3))
    def surface_a_little(self, steps: int) -> None:
        self.group.prune_top(steps)

    @rule(which=st.integers(0, 2))
    def look_at_one(self, which: int) -> None:
        queue = self.queues[which]
        queue.prune_top(UNBOUNDED)
        own = [timer for timer in self.model if self.model[timer][2] == which]
        assert queue.peek() is min(own, key=lambda timer: self.model[timer], default=None)

    @rule(which=st.integers(0, 2))
    def release_an_empty_one(self, which: int) -> None:
        if not self.queues[which]:
            self.group.discard(self.queues[which])

    @rule()
    def pop(self) -> None:
        self.group.prune_top(UNBOUNDED)
        first = min(self.model, key=lambda timer: self.model[timer], default=None)
        assert self.group.peek() is first
        if first is not None:
            assert self.group.pop() is first
            del self.model[first]

    @invariant()
    def little_is_stale(self) -> None:
        assert self.group.entries <= 2 * len(self.model) + 3
        assert len(self.group.listed) <= 2 * len(self.queues) + 2 * timer_queue_module.SLACK


GroupMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestGroupMachine = pytest.mark.slow(GroupMachine.TestCase)


def test_a_group_lists_each_queue_a_few_times_at_most() -> None:
    """This holds if ever earlier timers are added, or the only timer is added and removed."""
    group: QueueGroup[Named] = QueueGroup()
    earlier: TimerQueue[Named] = TimerQueue()
    coming: TimerQueue[Named] = TimerQueue()
    for number in range(1, 3000):
        group.push(earlier, Named(number), 3000 - number, number)
        timer = Named(number)
        group.push(coming, timer, 5000, number)
        timer._leave_queue()
        group.discard(coming)
        assert len(group.listed) <= 4 + 2 * timer_queue_module.SLACK
    assert group.entries == 2999
    assert group.prune_top(100) > 50
    first = group.peek()
    assert first is not None
    assert first.name == 2999


def test_a_group_takes_no_more_steps_than_it_is_given() -> None:
    group: QueueGroup[Named] = QueueGroup()
    queues: list[TimerQueue[Named]] = [TimerQueue() for _ in range(10)]
    for number in range(1, 101):
        timer = Named(number)
        group.push(queues[number % 10], timer, number, number)
        group.move(queues[number % 10], timer, 1000 - number, 1000 + number)
    assert group.prune_top(5) == 0
    assert group.prune_top(500) > 0
    first = group.peek()
    assert first is not None
    assert first.name == 100
