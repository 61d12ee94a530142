"""The operations on a store, as data: what the scheduler asks for, and what the store answers. No SQL, no waiting.

A store commits a list of operations in one transaction, in their order, and returns one result for each. The docstring of
each operation is its contract; ``tests/durable`` holds every store to a model of it.

A task is an *entry*. Its *generation* is its number in the store, given once and never used again. An entry that *holds*
its ID is the one that the verbs mean; one that does not is a *predecessor*, which was left to finish when its ID was
released or taken over. An entry has *begun* if it runs, or was interrupted while it ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, Literal, TypeVar

__all__ = [
    "Adopt",
    "Cancel",
    "CancelAll",
    "CancelResult",
    "Claim",
    "Count",
    "DurableStatistics",
    "End",
    "EndResult",
    "Entry",
    "Existing",
    "Export",
    "Find",
    "Import",
    "ImportResult",
    "IsEmpty",
    "List",
    "Load",
    "Move",
    "Operation",
    "Park",
    "Pause",
    "Placed",
    "Put",
    "PutResult",
    "Recover",
    "RecoverResult",
    "Release",
    "Resume",
    "Retry",
    "Seen",
    "Shelve",
    "Snapshot",
    "State",
    "Status",
]

ResultT_co = TypeVar("ResultT_co", covariant=True)


class State(IntEnum):
    """What an entry waits for. The numbers are stored."""

    PENDING = 0
    """For its due time, unless it is paused."""
    RUNNING = 1
    """For the end of its run."""
    PARKED = 2
    """To be retried by hand: its run cannot begin, or it was interrupted too often."""
    UNKNOWN = 3
    """For its handler to be registered."""


Status = Literal["pending", "paused", "running", "parked", "unknown"]
"""A state by its name, and for pending entries, whether they are paused. An entry has one of them."""

_STATUSES: Mapping[State, Status] = {
    State.PENDING: "pending",
    State.RUNNING: "running",
    State.PARKED: "parked",
    State.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A task as it is stored. Times are microseconds of UTC since 1970.

    Attributes:
        generation: Its number in the store.
        task_id: The ID, encoded.
        holds: Whether it holds the ID.
        state: What it waits for.
        paused: Whether it is paused.
        due: When the next run is due, or the current run was.
        time: The time of the recurrence that this run serves: without jitter, and before it was rescheduled.
        handler: The name of the handler.
        args: The arguments, encoded.
        recurrence: The recurrence, encoded; `None` if it runs once.
        expires: How late a run may begin, in microseconds, if there is a limit.
        run_count: How many runs have ended.
        attempts: How often the current run has been claimed.
        kills: How often the process has ended during the current run.
        problem: Why it is parked.
    """

    generation: int
    task_id: str
    holds: bool
    state: State
    paused: bool
    due: int
    time: int
    handler: str
    args: str
    recurrence: str | None
    expires: int | None
    run_count: int
    attempts: int
    kills: int
    problem: str | None

    @property
    def status(self) -> Status:
        """The state by its name, and whether a pending entry is paused."""
        if self.state is State.PENDING and self.paused:
            return "paused"
        return _STATUSES[self.state]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an entry is due.

    Attributes:
        generation: The number of the entry.
        task_id: Its ID, encoded.
        due: When it is due.
        ready: Whether it may start then: it is pending and not paused, without a predecessor that must be finished first.
    """

    generation: int
    task_id: str
    due: int
    ready: bool


@dataclass(frozen=True, slots=True)
class Operation(Generic[ResultT_co]):
    """An operation with a result of this type."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """The result of `Put`.

    Attributes:
        entry: The holder of the ID.
        added: Whether that is the new entry.
        ready: Whether it may start when it is due; see `Placed`.
        removed: The generation of the previous holder, if it was removed.
    """

    entry: Entry
    added: bool
    ready: bool
    removed: int | None


@dataclass(frozen=True, slots=True)
class Put(Operation[PutResult]):
    """Add a pending entry that holds its ID, unless the ID is held and ``on_conflict`` is ``"keep"`` or ``"error"``.

    With ``"replace"`` the holder is removed. With ``"follow"`` it is removed unless it has begun; then it becomes a
    predecessor. If the caller is the holder's own run, ``"replace"`` means ``"follow"``.

    The new entry must wait for a predecessor that was interrupted, parked or has no handler. (For one that runs the
    scheduler lets it wait.)
    """

    task_id: str
    due: int
    time: int
    handler: str
    args: str
    recurrence: str | None = None
    expires: int | None = None
    on_conflict: Literal["keep", "replace", "follow", "error"] = "keep"
    caller: int | None = None


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The result of `Cancel`.

    Attributes:
        generation: The previous holder.
        removed: Whether it was removed; if not, it has become a predecessor.
    """

    generation: int
    removed: bool


@dataclass(frozen=True, slots=True)
class Cancel(Operation[CancelResult | None]):
    """Release an ID. The holder is removed, or if it has begun and ``leave`` is true, becomes a predecessor.

    The result is `None` if the ID is not held.
    """

    task_id: str
    leave: bool = False


@dataclass(frozen=True, slots=True)
class CancelAll(Operation[frozenset[int]]):
    """Release all IDs, as `Cancel` does. The result are the generations of the predecessors, which are left."""

    leave: bool = False


@dataclass(frozen=True, slots=True)
class Move(Operation[Placed | None]):
    """Set the due time of the holder of an ID; `None` if it is not held, or the holder runs."""

    task_id: str
    due: int


@dataclass(frozen=True, slots=True)
class Pause(Operation[Placed | None]):
    """Pause the holder of an ID; `None` if it is not held, is paused, or runs for the last time."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Resume(Operation[Placed | None]):
    """Resume the holder of an ID; `None` if it is not held, or not paused."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Retry(Operation[Placed | None]):
    """Make a parked holder of an ID pending, with no kills counted; `None` if the ID is not held, or not parked."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Claim(Operation[Entry | None]):
    """Begin a run of an entry: it is running from now on, and one attempt more is counted.

    The result is `None`, and nothing changes, unless the entry exists, is pending, not paused, and due at ``due``. The due
    time is compared as a version: an entry that was moved cannot be claimed with its earlier due time.

    Attributes:
        generation: The number of the entry.
        due: When it is due.
        repeated: Whether this claim was made before, and may have been committed. Then an entry that is running and was due
            at ``due`` is returned as it is, with no attempt counted.
    """

    generation: int
    due: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class EndResult:
    """The result of an end.

    Attributes:
        removed: Whether the entry has been removed, by this operation or before.
        next: What may become due by it: the entry itself, or if it was removed, the one that waited for its end.
    """

    removed: bool
    next: Placed | None


@dataclass(frozen=True, slots=True)
class End(Operation[EndResult]):
    """End a run.

    If it has a next time and holds its ID, the entry is pending again, with no attempts and kills counted. If not, it is
    removed, and the entry under the same ID that must run next is returned: the oldest predecessor, else the holder.

    It may have been committed before. So an entry that has a next time and does not run is left as it is, and one that has
    been removed is answered for by its ID.

    Attributes:
        generation: The number of the entry.
        ran: Whether a run is counted; if not, it was left out.
        due: When the next run is due, if there is one.
        time: The time of the recurrence that the next run serves.
        task_id: The ID of the entry, encoded.
    """

    generation: int
    ran: bool = True
    due: int | None = None
    time: int | None = None
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Park(Operation[EndResult]):
    """Park a running entry. One that does not hold its ID could not be retried: it is removed as by `End`."""

    generation: int
    problem: str
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Release(Operation[None]):
    """Make a running entry pending: its run was interrupted.

    Attributes:
        begun: Whether the run had begun; if not, its attempt is not counted.
    """

    generation: int
    begun: bool


@dataclass(frozen=True, slots=True)
class Shelve(Operation[None]):
    """Make a running entry wait for its handler (`State.UNKNOWN`). Its attempt is not counted."""

    generation: int


@dataclass(frozen=True, slots=True)
class Find(Operation[Entry | None]):
    """Return the holder of an ID, or the entry of a generation."""

    task_id: str | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class Existing(Operation[frozenset[int]]):
    """Return which of these generations there are entries of."""

    generations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class List(Operation[list[Entry]]):
    """Return entries that hold their IDs, in the order of the encoded IDs: those from ``low`` to before ``high``.

    Attributes:
        low: The first encoded ID.
        after: Whether ``low`` itself is left out.
        high: The end.
        limit: The most entries to return.
        status: If given, only entries with this status are returned.
    """

    low: str
    high: str
    after: bool
    limit: int
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Load(Operation[list[Placed]]):
    """Return entries that are ready, in the order of due time and generation, after those given.

    Attributes:
        due: The due time of the last one before.
        generation: The generation of the last one before.
        limit: The most entries to return.
    """

    due: int
    generation: int
    limit: int


@dataclass(frozen=True, slots=True)
class DurableStatistics:
    """How many tasks there are in a store, by their status, with those that no longer hold their ID.

    Attributes:
        pending: Those that wait for their due time.
        paused: Those that are paused.
        running: Those that run.
        parked: Those that cannot run, and wait for `DurableScheduler.retry`.
        unknown: Those that wait until their handler is registered.
    """

    pending: int
    paused: int
    running: int
    parked: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Count(Operation[DurableStatistics]):
    """Count the entries, predecessors included. It may take a time that grows with their number."""


@dataclass(frozen=True, slots=True)
class IsEmpty(Operation[bool]):
    """Return whether the store is empty."""


@dataclass(frozen=True, slots=True)
class RecoverResult:
    """The result of `Recover`.

    Attributes:
        interrupted: How many entries were running.
        parked: The encoded IDs of those among them that have been parked, or removed as predecessors.
        unknown: How many entries wait for each handler that is not registered.
        identity: A text that is the same for the life of the store, and different for others.
        seen: The latest time that the scheduler has stored, in microseconds; 0 if there is none.
    """

    interrupted: int
    parked: tuple[str, ...]
    unknown: dict[str, int]
    identity: str
    seen: int


@dataclass(frozen=True, slots=True)
class Recover(Operation[RecoverResult]):
    """Prepare the store after it has been opened.

    Entries that were running are pending, with one kill more; with as many as ``max_kills`` they are parked, or if they do
    not hold their IDs, removed. Entries that are pending and whose handler is not given wait for it (`State.UNKNOWN`), and
    those that waited for one that is given are pending.

    Attributes:
        handlers: The names of the handlers.
        max_kills: After how many kills an entry is parked.
    """

    handlers: frozenset[str]
    max_kills: int


@dataclass(frozen=True, slots=True)
class Adopt(Operation[int]):
    """Make entries that wait for a handler pending. The result is their number."""

    handler: str


@dataclass(frozen=True, slots=True)
class Seen(Operation[None]):
    """Store the current time, unless a later time is stored."""

    now: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The contents of a store.

    Attributes:
        identity: See `RecoverResult`.
        generation: The latest generation that was given to an entry; 0 if there was none.
        seen: See `RecoverResult`.
        entries: All entries, in the order of their generations.
    """

    identity: str
    generation: int
    seen: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Export(Operation[Snapshot]):
    """Return the contents of the store."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The result of `Import`.

    Attributes:
        added: How many entries were added.
        conflicts: The encoded IDs, sorted, of which there were entries in the store and in the snapshot.
        renumbered: Whether the entries have other generations than in the snapshot.
    """

    added: int
    conflicts: tuple[str, ...]
    renumbered: bool


@dataclass(frozen=True, slots=True)
class Import(Operation[ImportResult]):
    """Add the entries of a snapshot, in their order.

    A store that never had an entry becomes the one of which the snapshot is: with its identity, its generations, and the
    latest generation that it had given. Another store gives the entries generations of its own. The latest time that the
    snapshot has seen is stored as by `Seen`.

    Attributes:
        snapshot: The snapshot. At most one of its entries holds each ID.
        on_conflict: What to do about IDs of which the store has entries, holders or predecessors: ``"error"``: add
            nothing at all; ``"keep"``: leave out the entries of the snapshot with these IDs; ``"replace"``: remove those of
            the store.
    """

    snapshot: Snapshot
    on_conflict: Literal["error", "keep", "replace"] = "error"
