"""Due times in heaps: pure data, with no event loop and no clock.

A binary heap is quick to push to and to pop from, but cannot let go of an entry in its middle. So the entry of a timer
that leaves stays behind, dead, until it surfaces or is swept out; and the entry of a timer that is postponed stays
where it is, and is pushed on when it surfaces.

One heap of a million entries would make every sweep a stall of half a second. The entries are therefore spread over
*segments*, heaps of a bounded size: a sweep concerns one segment, and takes a fraction of a millisecond however many
timers wait.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Generic, TypeVar

__all__ = ["SEGMENT_SIZE", "Timer", "TimerQueue"]

SEGMENT_SIZE = 1024

KeyT = TypeVar("KeyT", int, float)
TimerT = TypeVar("TimerT", bound="Timer")


class Timer:
    """What waits in a `TimerQueue`, in one at a time.

    A scheduled task is one, which saves an object for each.

    The attributes are the queue's. ``_key`` and ``_number`` give the timer its place; ``_entry`` is the number under
    which it stands in the heap of ``_segment``, which is another one while the timer is postponed. A timer that is in
    no queue has no segment.
    """

    __slots__ = ("_entry", "_key", "_number", "_segment")

    _key: Any
    _number: int
    _entry: int
    _segment: Segment[Any, Any] | None

    def leave_queue(self) -> None:
        """Leave the queue in which the timer waits, if any, in constant time on average."""
        if self._segment is not None:
            self._segment.discard(self)


class Segment(Generic[KeyT, TimerT]):
    """A heap of a bounded size that knows how many of its entries are dead."""

    __slots__ = ("dead", "heap", "queue")

    queue: TimerQueue[KeyT, TimerT]

    def __init__(self, queue: TimerQueue[KeyT, TimerT]) -> None:
        # Tuples, because heapq compares them in C. Numbers are unique, so that two timers are never compared.
        self.heap: list[tuple[KeyT, int, TimerT]] = []
        self.dead = 0
        self.queue = queue

    def discard(self, timer: TimerT) -> None:
        """Let go of a timer; its entry stays behind, dead."""
        timer._entry = 0
        timer._segment = None
        self.queue.live -= 1
        self.dead += 1
        if self.dead * 2 > len(self.heap):
            self.sweep()

    def sweep(self) -> None:
        """Let go of the dead entries: called when they outnumber the live ones."""
        self.heap[:] = [entry for entry in self.heap if entry[2]._entry == entry[1]]
        heapify(self.heap)
        self.dead = 0


class TimerQueue(Generic[KeyT, TimerT]):
    """Timers by their keys, the least first; those with equal keys by their numbers.

    Attributes:
        live: How many timers wait. It belongs to the segments.
    """

    __slots__ = ("_full", "_open", "live")

    def __init__(self) -> None:
        self.live = 0
        # New entries go to the open segment. The full ones stand in a heap of their own, each once, under its first
        # entry. After a sweep that place may be too far ahead, but never too far behind: it is put right at the top.
        self._open: Segment[KeyT, TimerT] = Segment(self)
        self._full: list[tuple[KeyT, int, Segment[KeyT, TimerT]]] = []

    def __len__(self) -> int:
        """Return the number of timers that wait."""
        return self.live

    @property
    def entries(self) -> int:
        """The number of entries in the heaps, with the dead ones: what the queue costs in memory."""
        return len(self._open.heap) + sum(len(segment.heap) for _, _, segment in self._full)

    def push(self, timer: TimerT, key: KeyT, number: int) -> None:
        """Add a timer that is in no queue.

        Args:
            timer: The timer.
            key: What it is ordered by.
            number: Its place among those with an equal key: positive, and used once in this queue.
        """
        segment = self._open
        timer._key = key
        timer._number = timer._entry = number
        timer._segment = segment
        self.live += 1
        heap = segment.heap
        heappush(heap, (key, number, timer))
        if len(heap) >= SEGMENT_SIZE:
            heappush(self._full, (heap[0][0], heap[0][1], segment))
            self._open = Segment(self)

    def move(self, timer: TimerT, key: KeyT, number: int) -> None:
        """Give a timer in this queue another place. The heap does not grow when it is a later one."""
        if key >= timer._key:
            timer._key = key
            timer._number = number
        else:
            timer.leave_queue()
            self.push(timer, key, number)

    def surface(self, steps: int) -> int:
        """Bring the first timer to the top: `first` and `pop` are true after this, until the queue is changed.

        Dead entries are dropped on the way, and postponed ones pushed on. Each is a step. The caller bounds them,
        because a hundred thousand may surface at once.

        Args:
            steps: The most steps to take.

        Returns:
            How many steps are left; 0 means that there may be more to do.
        """
        while steps:
            segment = self._first_segment()
            if segment is None:
                break
            heap = segment.heap
            _, number, timer = heap[0]
            if timer._entry != number:
                heappop(heap)
                segment.dead -= 1
            elif timer._number != number:
                timer._entry = timer._number
                heapreplace(heap, (timer._key, timer._number, timer))
            else:
                break
            steps -= 1
        return steps

    def first(self) -> tuple[KeyT, int, TimerT] | None:
        """Return the key, the number and the timer at the top, or `None`."""
        segment = self._first_segment()
        return None if segment is None else segment.heap[0]

    def pop(self) -> TimerT:
        """Take the timer at the top out of the queue."""
        segment = self._first_segment()
        assert segment is not None
        timer = heappop(segment.heap)[2]
        timer._entry = 0
        timer._segment = None
        self.live -= 1
        if segment.dead * 2 > len(segment.heap):
            segment.sweep()
        return timer

    def _first_segment(self) -> Segment[KeyT, TimerT] | None:
        """Return the segment whose first entry comes first, or `None` if there are no entries."""
        full, opened = self._full, self._open
        while full:
            key, number, segment = full[0]
            heap = segment.heap
            if not heap:
                heappop(full)
            elif heap[0][1] != number:
                heapreplace(full, (heap[0][0], heap[0][1], segment))
            elif opened.heap and opened.heap[0] < (key, number):
                return opened
            else:
                return segment
        return opened if opened.heap else None
