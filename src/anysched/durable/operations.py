"""The operations on a store, and their results, as plain data.

A store commits a list of operations in one transaction, in the given order, and returns one result for each. The
docstring of an operation is its contract; ``tests/durable`` compares every store with a model of it.

A stored task is called an *entry*. Its *generation* is its number in the store, which is assigned once and never
reused. The methods of the scheduler act on the entry that *holds* the ID. An entry that does not hold its ID is a
*predecessor*, which was left to finish when its ID was released or taken over. An entry has *begun* if it is running,
or was interrupted while it was running and is not parked: a parked predecessor could not be retried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, Literal, TypeVar

__all__ = [
    "HAS_BEGUN",
    "STATE_NAMES",
    "Adopt",
    "Cancel",
    "CancelAll",
    "CancelResult",
    "Claim",
    "Count",
    "DurableStatistics",
    "DurableStatus",
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


DurableStatus = Literal["pending", "running", "parked", "unknown"]
"""The status of a durable task; see `DurableTask.status`."""

Status = Literal["pending", "paused", "running", "parked", "unknown"]
"""The name of a state, or ``"paused"`` for a pending entry that is paused."""

STATE_NAMES: Mapping[State, DurableStatus] = {
    State.PENDING: "pending",
    State.RUNNING: "running",
    State.PARKED: "parked",
    State.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored task. Times are microseconds of UTC since 1970.

    Attributes:
        generation: Its number in the store.
        task_id: The ID, encoded.
        holds: Whether it holds the ID.
        state: What it waits for.
        paused: Whether it is paused.
        due: When the next run is due, or, during a run, when that run was due.
        time: The time of the recurrence that this run is for, without jitter and before it was rescheduled.
        handler: The name of the handler.
        args: The arguments, encoded.
        recurrence: The recurrence, encoded; `None` if it runs once.
        expires: How late a run may start, in microseconds; `None` for no limit.
        run_count: How many runs have ended.
        attempts: How many times the current run has been claimed.
        kills: How many times the process has ended during the current run.
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
    def has_begun(self) -> bool:
        """Whether it has begun; in SQL this is `HAS_BEGUN`."""
        return self.state is State.RUNNING or (self.attempts > 0 and self.state is not State.PARKED)

    @property
    def status(self) -> Status:
        """The name of the state, or ``"paused"`` for a pending entry that is paused."""
        if self.state is State.PENDING and self.paused:
            return "paused"
        return STATE_NAMES[self.state]


HAS_BEGUN = f"(state = {State.RUNNING:d} or attempts > 0 and state <> {State.PARKED:d})"
"""The condition of `Entry.has_begun` on the columns of an entry."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an entry is due.

    Attributes:
        generation: The number of the entry.
        task_id: Its ID, encoded.
        due: When it is due.
        ready: Whether it may start then: it is pending and not paused, without a predecessor that must be finished
            first.
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

    The new entry must wait for a predecessor that was interrupted or has no handler. (If the predecessor is
    running, the scheduler makes the new entry wait.)
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
    """Release an ID. The holder is removed, or becomes a predecessor if it has begun and ``leave`` is true.

    The result is `None` if the ID is not held.
    """

    task_id: str
    leave: bool = False


@dataclass(frozen=True, slots=True)
class CancelAll(Operation[frozenset[int]]):
    """Release all IDs, as `Cancel` does. The result is the generations of the predecessors, which remain."""

    leave: bool = False


@dataclass(frozen=True, slots=True)
class Move(Operation[Placed | None]):
    """Set the due time of the holder of an ID; `None` if it is not held, or if the holder is running."""

    task_id: str
    due: int


@dataclass(frozen=True, slots=True)
class Pause(Operation[Placed | None]):
    """Pause the holder of an ID; `None` if it is not held, is already paused, or is in its last run."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Resume(Operation[Placed | None]):
    """Resume the holder of an ID; `None` if it is not held, or not paused."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Retry(Operation[Placed | None]):
    """Make the parked holder of an ID pending, with ``kills`` reset to 0; `None` if it is not held, or not parked."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Claim(Operation[Entry | None]):
    """Begin a run of an entry: it becomes running, and ``attempts`` goes up by one.

    The result is `None`, and nothing changes, unless the entry exists, is pending, not paused, and due at ``due``. The
    due time serves as a version: an entry that was moved cannot be claimed with its previous due time.

    Attributes:
        generation: The number of the entry.
        due: When it is due.
        repeated: Whether this claim was made before and may have been committed. In this case, an entry that is running
            and was due at ``due`` is returned unchanged, and no attempt is counted.
    """

    generation: int
    due: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class EndResult:
    """The result of an end.

    Attributes:
        removed: Whether the entry has been removed, by this operation or an earlier one.
        next: The entry that may now become due: this entry, or if it was removed, the one that waited for it to end.
    """

    removed: bool
    next: Placed | None


@dataclass(frozen=True, slots=True)
class End(Operation[EndResult]):
    """End a run.

    If it has a next time and holds its ID, the entry becomes pending again, with ``attempts`` and ``kills`` reset to 0.
    Otherwise, it is removed, and the entry with the same ID that must run next is returned: the oldest predecessor, or
    else the holder.

    It may have been committed before. So an entry that has a next time and does not run is left as it is, and one that
    has been removed is answered for by its ID.

    Attributes:
        generation: The number of the entry.
        ran: Whether the run counts; false if it was skipped.
        due: When the next run is due, if there is one.
        time: The time of the recurrence that the next run is for.
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
    """Return entries that hold their IDs, sorted by the encoded ID, from ``low`` up to but excluding ``high``.

    Attributes:
        low: The first encoded ID.
        after: Whether ``low`` itself is excluded.
        high: The end.
        limit: The maximum number of entries to return.
        status: If given, only entries with this status are returned.
    """

    low: str
    high: str
    after: bool
    limit: int
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Load(Operation[list[Placed]]):
    """Return entries that are ready, sorted by due time and generation, after the given position.

    Attributes:
        due: The due time of the last entry before them.
        generation: The generation of the last entry before them.
        limit: The maximum number of entries to return.
    """

    due: int
    generation: int
    limit: int


@dataclass(frozen=True, slots=True)
class DurableStatistics:
    """How many tasks are in a store, by status, including tasks that no longer hold their ID.

    Attributes:
        pending: Tasks that are waiting for their due time.
        paused: Tasks that are paused.
        running: Tasks that are running.
        parked: Tasks that cannot run, and wait for `DurableScheduler.retry`.
        unknown: Tasks that are waiting for their handler to be registered.
    """

    pending: int
    paused: int
    running: int
    parked: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Count(Operation[DurableStatistics]):
    """Count the entries, including predecessors. The time that this takes may grow with their number."""


@dataclass(frozen=True, slots=True)
class IsEmpty(Operation[bool]):
    """Return whether the store is empty."""


@dataclass(frozen=True, slots=True)
class RecoverResult:
    """The result of `Recover`.

    Attributes:
        interrupted: How many entries were running.
        parked: The encoded IDs of the interrupted entries that were parked, or removed because they were predecessors.
        unknown: For each handler that is not registered, how many entries are waiting for it.
        identity: A text that never changes during the life of the store, and that no other store has.
        seen: The latest time that the scheduler stored, in microseconds; 0 if there is none.
    """

    interrupted: int
    parked: tuple[str, ...]
    unknown: dict[str, int]
    identity: str
    seen: int


@dataclass(frozen=True, slots=True)
class Recover(Operation[RecoverResult]):
    """Prepare the store after it has been opened.

    Entries that were running become pending, and their ``kills`` goes up by one. When it reaches ``max_kills``, they
    are parked, or removed if they do not hold their IDs. Pending entries whose handler is not in ``handlers`` wait for
    it (`State.UNKNOWN`), and entries that waited for a handler in ``handlers`` become pending.

    Attributes:
        handlers: The names of the handlers.
        max_kills: The number of kills after which an entry is parked.
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
        generation: The latest generation that was assigned to an entry; 0 if there was none.
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

    A store that never had an entry becomes a copy of the exported store, with its identity, its generations, and the
    latest generation that it had assigned. Any other store assigns new generations to the entries. The latest time in
    the snapshot is stored as by `Seen`.

    Attributes:
        snapshot: The snapshot. At most one of its entries holds each ID.
        on_conflict: What to do about IDs for which the store already has entries, holders or predecessors: ``"error"``:
            add nothing at all; ``"keep"``: skip the entries of the snapshot with these IDs; ``"replace"``: remove the
            entries of the store.
    """

    snapshot: Snapshot
    on_conflict: Literal["error", "keep", "replace"] = "error"
