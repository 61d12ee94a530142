"""The writer: operations that must wait for a transaction of the user do not hold up the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from durable_support import until

from anysched.durable import StoreError
from anysched.durable.errors import ContendedError
from anysched.durable.operations import Find, Operation
from anysched.durable.writer import StoppedError, Writer

pytestmark = pytest.mark.anyio


class ContendedStore:
    """Keeps nothing, and refuses a commit with an operation on an ID that a transaction of the user has changed."""

    def __init__(self) -> None:
        self.changed = {"changed"}
        self.committed: list[list[str | None]] = []

    def open(self) -> None:
        pass

    def commit(self, operations: Sequence[Operation[Any]], /) -> list[Any]:
        ids = [operation.task_id for operation in operations if isinstance(operation, Find)]
        if self.changed.intersection(ids):
            raise ContendedError("another transaction has changed it")
        self.committed.append(ids)
        return list(ids)

    def close(self) -> None:
        pass


def note(applied: list[str], name: str) -> Callable[[object], None]:
    return lambda _: applied.append(name)


async def test_the_operations_of_a_contended_group_are_committed_one_by_one() -> None:
    store, applied = ContendedStore(), list[str]()
    writer = Writer(store, logging.getLogger("anysched.test"), lambda: None, lambda _: False)
    await writer.open(store.open)
    for name in ("a", "changed", "b"):
        writer.post(Find(name), note(applied, name))
    async with anyio.create_task_group() as group:
        group.start_soon(writer.run)
        await until(lambda: applied == ["a", "b"])
        assert store.committed == [["a"], ["b"]]
        store.changed.clear()
        await until(lambda: applied == ["a", "b", "changed"])
        writer.stop()


async def test_only_starts_and_ends_are_given_up_with_the_ownership() -> None:
    store = ContendedStore()
    writer = Writer(store, logging.getLogger("anysched.test"), lambda: None, lambda _: False)
    await writer.open(store.open)
    raised: list[str] = []

    async def submit(name: str, *, internal: bool) -> None:
        try:
            await writer.submit(Find(name), internal=internal)
        except (StoppedError, StoreError) as error:
            raised.append(f"{name} {type(error).__name__}")

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: submit("verb", internal=False))
        group.start_soon(lambda: submit("start", internal=True))
        await until(lambda: len(writer._queue) == 2)
        writer.drop_internal()
        group.start_soon(writer.run)
        await until(lambda: store.committed)
        writer.stop()
    assert raised == ["start StoppedError"]
    assert store.committed == [["verb"]]
