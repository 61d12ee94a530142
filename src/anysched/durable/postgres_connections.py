"""Executing statements one after another on connections of psycopg and SQLAlchemy, both blocking and async."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, final

import psycopg
from anyio import to_thread
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from .steps import Rows, Statement, Steps

# Without `Session`, whose hints psycopg leaves unresolved at run time.
__all__ = ["execute", "is_overdue", "perform_in", "run"]

R = TypeVar("R")

ANSWER_TIMEOUT = 65.0
"""How long to wait for the answer to a statement, in seconds. A server that reacts ends a statement a little earlier."""


def is_overdue(sent: float) -> bool:
    """Return whether the answer to a statement is overdue that was sent at a time of the monotonic clock."""
    return time.monotonic() > sent + ANSWER_TIMEOUT


@final
class Session(psycopg.Connection[TupleRow]):
    """A connection that is closed if the server does not answer, although its system keeps the connection open.

    So it is with a server that is stopped by a signal, or whose disk or virtual machine hangs. The settings for TCP are
    for networks that fail.
    """

    def wait(self, gen: PQGen[R], *args: Any, **kwargs: Any) -> R:
        """Wait for the answer of the server."""
        return super().wait(self._limited(gen), *args, **kwargs)

    def _limited(self, gen: PQGen[R]) -> PQGen[R]:
        # psycopg resumes it every tenth of a second.
        sent = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and is_overdue(sent):
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {ANSWER_TIMEOUT:g} seconds")
                wanted = gen.send(ready)
        except StopIteration as stop:
            result: R = stop.value
            return result


def execute(session: psycopg.Connection[Any], statement: Statement) -> Rows:
    """Execute a statement and return its rows."""
    with session.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement.text.encode(), statement.values, prepare=_prepare(statement))
        return cursor.fetchall() if cursor.description else []


def run(session: psycopg.Connection[Any], steps: Steps[R]) -> R:
    """Execute statements one after another."""
    return _run(lambda statement: execute(session, statement), steps)


async def perform_in(connection: object, steps: Steps[R]) -> R:
    """Execute statements one after another in the transaction of a user's connection, without committing it.

    Raises:
        TypeError: if it is neither a connection of psycopg nor one of SQLAlchemy over psycopg.
        RuntimeError: if each statement would be a separate transaction.
    """
    found: Any = connection
    if isinstance(connection, psycopg.AsyncConnection):
        return await _run_async(_on_async_psycopg(found), _in_transaction(found, steps))
    if isinstance(connection, psycopg.Connection):
        return await to_thread.run_sync(run, found, _in_transaction(found, steps))
    # SQLAlchemy's connections must be used through SQLAlchemy, which would otherwise not know that there is something
    # to commit.
    if hasattr(connection, "exec_driver_sql"):
        if hasattr(connection, "get_raw_connection"):
            raw = await found.get_raw_connection()
            return await _run_async(_on_async_sqlalchemy(found), _in_transaction(raw.driver_connection, steps))
        return await to_thread.run_sync(_run_on_sqlalchemy, found, steps)
    raise TypeError(
        "connection must be a Connection or AsyncConnection of psycopg or SQLAlchemy, "
        f"not {type(connection).__name__}: {connection!r}"
    )


def _in_transaction(connection: Any, steps: Steps[R]) -> Steps[R]:
    if not isinstance(connection, psycopg.Connection | psycopg.AsyncConnection):
        raise TypeError(f"connection must be SQLAlchemy's over psycopg, not over {type(connection).__name__}")
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise RuntimeError(
            "the connection commits each statement by itself: open a transaction first, "
            "`async with connection.transaction():`"
        )
    return steps


def _on_async_psycopg(connection: psycopg.AsyncConnection[Any]) -> Callable[[Statement], Awaitable[Rows]]:
    async def execute(statement: Statement) -> Rows:
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(statement.text.encode(), statement.values, prepare=_prepare(statement))
            return await cursor.fetchall() if cursor.description else []

    return execute


def _on_async_sqlalchemy(connection: Any) -> Callable[[Statement], Awaitable[Rows]]:
    async def execute(statement: Statement) -> Rows:
        return _rows(await connection.exec_driver_sql(statement.text, dict(statement.values)))

    return execute


def _run_on_sqlalchemy(connection: Any, steps: Steps[R]) -> R:
    return _run(
        lambda statement: _rows(connection.exec_driver_sql(statement.text, dict(statement.values))),
        _in_transaction(connection.connection.driver_connection, steps),
    )


def _rows(result: Any) -> Rows:
    return [tuple(row) for row in result.fetchall()] if result.returns_rows else []


def _prepare(statement: Statement) -> bool | None:
    return False if statement.plan else None


def _run(execute: Callable[[Statement], Rows], steps: Steps[R]) -> R:
    try:
        statement = next(steps)
        while True:
            statement = steps.send(execute(statement))
    except StopIteration as stop:
        result: R = stop.value
        return result


async def _run_async(execute: Callable[[Statement], Awaitable[Rows]], steps: Steps[R]) -> R:
    try:
        statement = next(steps)
        while True:
            statement = steps.send(await execute(statement))
    except StopIteration as stop:
        result: R = stop.value
        return result
