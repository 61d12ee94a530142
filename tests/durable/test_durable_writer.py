"""The writer: one commit after the other, and the results applied in the order of the commits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anysched.durable.operations import IsEmpty, Operation
from anysched.durable.writer import GROUP, OVERLAP, Writer

pytestmark = pytest.mark.anyio


class CountingStore:
    """A store whose answers are numbers in turn. It notes how many had been applied when a commit began."""

    def __init__(self) -> None:
        self.answered = 0
        self.applied: list[int] = []
        self.applied_before: list[int] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def commit(self, operations: Sequence[Operation[Any]], /) -> list[Any]:
        self.applied_before.append(len(self.applied))
        first = self.answered
        self.answered += len(operations)
        return list(range(first, self.answered))


async def commit_all(store: CountingStore, count: int) -> None:
    """Commit operations that are in the queue at the same time."""
    writer = Writer(store, logging.getLogger("anysched.test"), lambda: None)
    await writer.open()
    for _ in range(count):
        writer.post(IsEmpty(), store.applied.append)
    async with anyio.create_task_group() as group:
        group.start_soon(writer.run)
        await checkpoint()
        writer.stop()


async def test_results_are_applied_in_the_order_of_the_commits() -> None:
    store = CountingStore()
    await commit_all(store, 5 * GROUP + 7)
    assert store.applied == list(range(5 * GROUP + 7))


async def test_when_there_is_much_to_commit_it_is_committed_while_results_are_applied() -> None:
    """The disk and the event loop work at the same time. No more than one group waits to be applied."""
    store = CountingStore()
    await commit_all(store, 4 * GROUP)
    assert len(store.applied_before) == 4
    for number, applied in enumerate(store.applied_before):
        assert max(number - 2, 0) * GROUP <= applied
    assert any(applied < number * GROUP for number, applied in enumerate(store.applied_before))


async def test_a_few_operations_are_committed_when_the_results_before_are_applied() -> None:
    """As they come one by one, they would be committed one by one."""
    store = CountingStore()
    await commit_all(store, GROUP + OVERLAP - 1)
    assert store.applied_before == [0, GROUP]
