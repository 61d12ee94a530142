"""Due times in heaps: pure data, with no event loop and no clock.

Pushing to and popping from a binary heap is fast, but an entry cannot be removed from its middle. So the entry of a
timer that leaves stays in the heap as a stale entry until it comes to the top or is removed by compaction. The entry of
a postponed timer stays where it is and is moved when it comes to the top.

Compacting one heap of a million entries would stall the event loop for half a second. The entries are therefore spread
over *segments*, heaps of limited size: a compaction affects one segment and takes a fraction of a millisecond, however
many timers there are.

The entries are integers, and a dictionary for each segment maps them to timers. Entries that contained the timer itself
would be another object for each timer that the garbage collector has to visit repeatedly, which would cost more
than all the work that is done here.

Each scheduler has its own queues, so that it knows its first timer however many timers the others have. A *group* of
queues finds the first timer of all.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Any, Generic, TypeVar

__all__ = ["SEGMENT_SIZE", "QueueGroup", "Timer", "TimerQueue"]

SEGMENT_SIZE = 1365
"""The number of items in a dictionary before it grows from 2,048 to 4,096 slots."""

DISSOLVED_SIZE = SEGMENT_SIZE // 8
"""A full segment with no more timers than this is dissolved."""

SLACK = 8
"""A segment releases memory when more timers have left than remain, by more than this; likewise a group of queues."""

SEQUENCE_BITS = 48
SEQUENCE_MASK = (1 << SEQUENCE_BITS) - 1

TimerT = TypeVar("TimerT", bound="Timer")


class Timer:
    """An item of a `TimerQueue`, in one queue at a time.

    A scheduled task is one, which saves an object for each.

    The attributes are the queue's. ``_key`` orders the timers: the key, and below it the number, in one integer.
    ``_heap_key`` is the place under which the timer is listed in the heap of ``_segment``, an earlier one while the
    timer is postponed. A timer that is in no queue has no segment.
    """

    __slots__ = ("_heap_key", "_key", "_segment")

    _key: int
    _heap_key: int
    _segment: Segment[Any] | None

    @property
    def _sequence(self) -> int:
        return self._key & SEQUENCE_MASK

    def _leave_queue(self) -> None:
        """Leave the queue in which the timer waits, if any, in constant time on average; its entry stays, stale."""
        segment = self._segment
        if segment is not None:
            self._segment = None
            # If `pop` was interrupted, it has already been removed.
            segment.timers.pop(self._heap_key, None)
            segment.removals = removals = segment.removals + 1
            # There are no more stale entries than removals, so they never outnumber the timers.
            if removals > len(segment.timers):
                segment.compact()


class Segment(Generic[TimerT]):
    """A heap of limited size, with its timers by their entries; an entry without a timer is stale.

    Attributes:
        heap: The entries.
        timers: The timers by their entries.
        removals: How many timers have left since the segment was compacted.
        is_full: Whether no more timers are added.
    """

    __slots__ = ("_queue", "heap", "is_full", "removals", "timers")

    def __init__(self, queue: TimerQueue[TimerT]) -> None:
        self._queue = queue
        self.heap: list[int] = []
        self.timers: dict[int, TimerT] = {}
        self.removals = 0
        self.is_full = False

    def compact(self) -> None:
        """Release the memory of the timers that have left. Called when they outnumber the others.

        A dictionary does not shrink by itself. A full segment with few timers left is dissolved; otherwise a single
        long-lived timer would keep a whole segment alive.
        """
        self.removals = 0
        if self.is_full and len(self.timers) <= DISSOLVED_SIZE:
            self._queue.dissolve(self)
        else:
            self.timers = dict(self.timers)
            self.heap[:] = self.timers
            heapify(self.heap)


class TimerQueue(Generic[TimerT]):
    """A priority queue of timers, ordered by key and, for equal keys, by sequence number.

    Attributes:
        place: The place of the queue in its group; infinity if it is not listed. Set by the group.
    """

    __slots__ = ("_dissolved", "_full", "_next_number", "_open", "_top", "place")

    def __init__(self) -> None:
        # New entries go to the open segment. The full segments are in another heap, each once, under its first entry.
        # After a compaction this position may be too early but never too late; it is corrected at the top. The number
        # distinguishes a dissolved segment from a segment that has received its first timer.
        self._open: Segment[TimerT] = Segment(self)
        self._full: list[tuple[int, int, Segment[TimerT]]] = []
        self._next_number = count().__next__
        # The segment whose first entry is the first of all: what `prune_top` found.
        self._top: Segment[TimerT] | None = None
        # How many of the full segments have been dissolved and are empty.
        self._dissolved = 0
        self.place: float = math.inf

    def __len__(self) -> int:
        """Return the number of timers, by adding up the segments."""
        return len(self._open.timers) + sum(len(segment.timers) for _, _, segment in self._full)

    @property
    def entries(self) -> int:
        """The number of entries in the heaps, including stale ones, which determines the memory use."""
        return len(self._open.heap) + sum(len(segment.heap) for _, _, segment in self._full)

    def push(self, timer: TimerT, key: int, sequence: int) -> None:
        """Add a timer that is not in a queue.

        Args:
            timer: The timer.
            key: The key by which it is ordered.
            sequence: Its place among timers with an equal key: positive, and used only once in this queue.
        """
        entry = key << SEQUENCE_BITS | sequence
        segment = self._open
        timer._key = timer._heap_key = entry
        timer._segment = segment
        segment.timers[entry] = timer
        heap = segment.heap
        heappush(heap, entry)
        if len(heap) >= SEGMENT_SIZE:
            segment.is_full = True
            heappush(self._full, (heap[0], self._next_number(), segment))
            self._open = Segment(self)

    def dissolve(self, segment: Segment[TimerT]) -> None:
        """Move the few timers that are left in a full segment to the open one."""
        timers, segment.timers, segment.heap = segment.timers, {}, []
        for timer in timers.values():
            # One that is postponed goes to its present place.
            self.push(timer, timer._key >> SEQUENCE_BITS, timer._key & SEQUENCE_MASK)
        self._dissolved += 1
        if self._dissolved * 2 > len(self._full):
            self._dissolved = 0
            self._full = [(each.heap[0], number, each) for _, number, each in self._full if each.heap]
            heapify(self._full)

    def move(self, timer: TimerT, key: int, sequence: int) -> None:
        """Move a timer in this queue to another place. If that is later, the heap does not grow."""
        place = key << SEQUENCE_BITS | sequence
        if place >= timer._key:
            timer._key = place
        else:
            timer._leave_queue()
            self.push(timer, key, sequence)

    def prune_top(self, steps: int) -> int:
        """Bring the first timer to the top. `peek` and `pop` are valid after this, until the queue is changed.

        Stale entries at the top are dropped, and postponed ones are moved. Each is a step. The caller limits the steps,
        because a hundred thousand such entries may come to the top at once.

        Args:
            steps: The maximum number of steps.

        Returns:
            How many steps are left; 0 means that there may be more to do.
        """
        while steps:
            segment = self._first_segment() if self._full else self._open
            heap, timers = segment.heap, segment.timers
            if not heap:
                self._top = None
                break
            self._top = segment
            entry = heap[0]
            timer = timers.get(entry)
            if timer is None:
                heappop(heap)
            elif timer._key != entry:
                del timers[entry]
                timer._heap_key = place = timer._key
                timers[place] = timer
                heapreplace(heap, place)
            else:
                break
            steps -= 1
        return steps

    def peek(self) -> TimerT | None:
        """Return the timer at the top, or `None`; see `prune_top`."""
        segment = self._top
        return None if segment is None else segment.timers[segment.heap[0]]

    def pop(self) -> TimerT:
        """Remove and return the timer at the top; see `prune_top`."""
        segment = self._top
        assert segment is not None
        timer = segment.timers.pop(heappop(segment.heap))
        timer._segment = None
        segment.removals += 1
        left = len(segment.timers)
        if left * 2 < len(segment.heap) or segment.removals > left + SLACK:
            segment.compact()
        return timer

    def _first_segment(self) -> Segment[TimerT]:
        """Return the segment whose first entry comes first; the open one, which may be empty, if there are no others."""
        full, opened = self._full, self._open
        while full:
            entry, number, segment = full[0]
            heap = segment.heap
            if not heap:
                heappop(full)
                self._dissolved = max(self._dissolved - 1, 0)
            elif heap[0] != entry:
                heapreplace(full, (heap[0], number, segment))
            elif opened.heap and opened.heap[0] < entry:
                return opened
            else:
                return segment
        return opened


class QueueGroup(Generic[TimerT]):
    """A group of queues, which finds the first timer of all.

    A queue is listed under its first entry or an earlier one; its place is corrected when it comes to the top. If an
    earlier timer is added, the queue is listed again, and its previous place becomes stale.

    Attributes:
        listed: A heap of the queues with timers, and of stale places; if it is empty, no timer waits.
    """

    __slots__ = ("_next_number", "_stale", "_top", "listed")

    def __init__(self) -> None:
        # The number distinguishes entries of a queue that was listed twice.
        self.listed: list[tuple[float, int, TimerQueue[TimerT]]] = []
        self._next_number = count().__next__
        self._stale = 0
        # The queue whose first timer is the first of all: what `prune_top` found.
        self._top: TimerQueue[TimerT] | None = None

    @property
    def entries(self) -> int:
        """The number of entries in the heaps of the queues, including stale ones."""
        return sum(queue.entries for queue in {id(queue): queue for _, _, queue in self.listed}.values())

    def push(self, queue: TimerQueue[TimerT], timer: TimerT, key: int, sequence: int) -> None:
        """Add a timer that is not in a queue to one of the queues; see `TimerQueue.push`."""
        queue.push(timer, key, sequence)
        if timer._key < queue.place:
            self.relist(queue, timer._key)

    def move(self, queue: TimerQueue[TimerT], timer: TimerT, key: int, sequence: int) -> None:
        """Move a timer to another place in its queue; see `TimerQueue.move`."""
        queue.move(timer, key, sequence)
        if timer._key < queue.place:
            self.relist(queue, timer._key)

    def discard(self, queue: TimerQueue[TimerT]) -> None:
        """Release an empty queue; it is listed again with its next timer."""
        if queue.place != math.inf:
            queue.place = math.inf
            self._note_stale()

    def relist(self, queue: TimerQueue[TimerT], place: int) -> None:
        """List a queue with a new first timer."""
        was_listed = queue.place != math.inf
        queue.place = place
        heappush(self.listed, (place, self._next_number(), queue))
        if was_listed:
            self._note_stale()

    def _note_stale(self) -> None:
        self._stale += 1
        if self._stale * 2 > len(self.listed) + SLACK:
            self._stale = 0
            self.listed[:] = [listed for listed in self.listed if listed[0] == listed[2].place]
            heapify(self.listed)

    def prune_top(self, steps: int) -> int:
        """Bring the first timer to the top, as `TimerQueue.prune_top` does in each queue."""
        listed = self.listed
        # The usual case: its place need not be corrected until there are others.
        if len(listed) == 1 and not self._stale:
            queue = listed[0][2]
            steps = queue.prune_top(steps)
            self._top = queue
            return steps
        while steps and listed:
            place, number, queue = listed[0]
            if place != queue.place:
                heappop(listed)
                self._stale -= 1
            else:
                steps = queue.prune_top(steps)
                if not steps:
                    return 0
                first = queue.peek()
                if first is None:
                    heappop(listed)
                    queue.place = math.inf
                elif first._key != place:
                    queue.place = first._key
                    heapreplace(listed, (first._key, number, queue))
                else:
                    self._top = queue
                    return steps
            steps -= 1
        self._top = None
        return steps

    def peek(self) -> TimerT | None:
        """Return the timer at the top, or `None`; see `prune_top`."""
        queue = self._top
        return None if queue is None else queue.peek()

    def pop(self) -> TimerT:
        """Take the timer at the top out of its queue; see `prune_top`."""
        assert self._top is not None
        return self._top.pop()
