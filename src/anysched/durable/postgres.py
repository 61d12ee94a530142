"""The store in a PostgreSQL database, which several processes can have open. It requires the extra ``postgres``."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from socket import AF_INET, SOCK_STREAM, fromfd, gethostname, socket
from typing import Any, Literal, TypeVar, final, get_args

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.pq import ExecStatus
    from psycopg.rows import tuple_row
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        "anysched.durable.postgres needs psycopg: pip install 'anysched[postgres]'", name="psycopg"
    ) from _error

from .errors import ContendedError, OwnershipLostError, StoreError, StoreInUseError, UncertainCommitError
from .operations import Operation, Seen
from .postgres_connections import Session, execute, is_overdue, perform_in, run
from .postgres_operations import VERBS, Transaction
from .postgres_schema import migrate, script
from .shared import Beat, News, TakeNotices
from .steps import Statement, Steps
from .values import check_text

__all__ = ["Failover", "PostgresStore"]

R = TypeVar("R")

MIN_POSTGRES = 140_000
"""The first version in which a session that waits for a lock ends when its process ends."""

# After a network failure, TCP gives up here after at most 4 seconds, or after 8 if something was sent in this time, since
# that is waited for afresh. The server (`SESSION`) gives up between 10 and 13 seconds after the failure: the last answer to
# its probes is up to 2 seconds old, and what it had sent is waited for a little longer. An owner that is cut off therefore cancels its running tasks before the server ends its
# session and another owner starts.
CLIENT_PARAMETERS: dict[str, Any] = {
    "application_name": "anysched",
    "client_encoding": "utf8",
    "connect_timeout": 5,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 4_000,
    "target_session_attrs": "read-write",
}
"""Default parameters of the connections."""

SESSION = """
    set default_transaction_isolation = 'read committed';
    set default_transaction_read_only = off;
    set idle_session_timeout = 0;
    set idle_in_transaction_session_timeout = '60s';
    set statement_timeout = '60s';
    set lock_timeout = '3s';
    set tcp_keepalives_idle = 2;
    set tcp_keepalives_interval = 5;
    set tcp_keepalives_count = 2;
    set tcp_user_timeout = '12s'
"""
"""The settings of the sessions."""

WAIT_FOR_LOCK = "set statement_timeout = 0; set lock_timeout = '30s'"
"""The settings while a session waits for the ownership. A statement that waits keeps `VACUUM` from removing dead rows."""

ROW_LOCK_TIMEOUT = "50ms"
"""How long a commit waits for a transaction of a user's, while all other commits of the scheduler wait for it."""

FORGETTABLE: frozenset[type[Operation[Any]]] = frozenset({Beat, Seen, TakeNotices})
"""Operations that need not survive a crash of the server, which ends the ownership: the next owner reads everything.

So their commits do not wait for the disk, and what other processes schedule starts sooner.
"""

ATTEMPTS = 3
"""How many times a transaction is tried if PostgreSQL ends it because of a deadlock with another one."""

Failover = Literal["safe", "prompt"]
"""What the others do about an owner that does not react; see `PostgresStore`."""


@final
class PostgresStore:
    """Keeps tasks in a PostgreSQL database, which any number of processes and machines can have open.

    One of the processes owns the tasks and runs them. The others stand by, and one of them takes over when the session
    of the owner ends. Each process has two or three connections. Schedulers with different names share only the
    tables, whose names begin with ``anysched_``. The tables are created in the first schema of the search path.

    It requires the extra ``postgres`` and PostgreSQL 14 or later.

    Args:
        conninfo: The database, as a URI or a libpq connection string. A connection pooler must be in session mode.
        name: The name under which the tasks are stored; by default, the name of the scheduler.
        failover: With ``"safe"``, an owner that does not react, because it is stopped or its event loop is blocked, remains the
            owner as long as its session lives. With ``"prompt"``, the others end its session in PostgreSQL, and one takes over.
            What it runs may then run at the same time elsewhere, until it reacts again. All processes must use the same.
        failover_after: After how many seconds without a sign of life an owner is deposed, if the failover is prompt. The owner
            gives three in that time.

    Raises:
        ValueError: if ``conninfo`` cannot be parsed, ``failover`` is unknown, ``failover_after`` is not positive, or the name
            contains a NUL character or a lone surrogate.
    """

    def __init__(
        self,
        conninfo: str = "",
        *,
        name: str | None = None,
        failover: Failover = "safe",
        failover_after: float = 10.0,
    ) -> None:
        if failover not in get_args(Failover):
            raise ValueError(f'failover must be "safe" or "prompt", not {failover!r}')
        if not failover_after > 0:
            raise ValueError(f"failover_after must be positive, not {failover_after!r}")
        if name is not None:
            check_text(name, "the name of a PostgresStore")
        try:
            given = conninfo_to_dict(conninfo)
        except psycopg.Error as error:
            raise ValueError(f"conninfo cannot be parsed: {error}") from None
        self._conninfo = make_conninfo("", **{**CLIENT_PARAMETERS, **given})
        self._place = "/".join(str(given[key]) for key in ("host", "port", "dbname") if given.get(key)) or "the default"
        self._name = name
        self._failover_after = failover_after if failover == "prompt" else None
        self._scheduler = name or "default"
        self._process = 0
        self._number = 0
        self._tables = 0
        self._handlers: dict[str, int] = {}
        # The session for calls while this process is not the owner; the session that waits for the ownership, has it,
        # or has lost it; the session that listens.
        self._session: Session | None = None
        self._candidate: Session | None = None
        self._owns = False
        self._asked = 0.0  # when the wait for the ownership was begun or renewed last
        self._ownership_socket: socket | None = None
        self._listener: Session | None = None
        self._news_socket: socket | None = None
        self._announced: list[str] = []

    def __repr__(self) -> str:
        return f"PostgresStore({self._place!r}, name={self._scheduler!r})"

    @property
    def failover_after(self) -> float | None:
        """After how many seconds without a sign of life the owner is deposed; `None` if never."""
        return self._failover_after

    # The store

    def open(self) -> None:
        """Open the store, and become its owner.

        Raises:
            StoreInUseError: if it has another owner.
            StoreError: if it cannot be opened.
        """
        if self._session is not None:
            raise StoreInUseError(repr(self), "this process, by the same PostgresStore")
        self.join(self._scheduler)
        try:
            if not self.contend():
                raise StoreInUseError(repr(self), self._read_owner())
        except BaseException:
            self.close()
            raise

    def join(self, scheduler: str) -> None:
        """Open the store, and upgrade the database to the schema of this release.

        Raises:
            StoreError: if it cannot be opened, or is of a newer release.
        """
        if self._session is not None:
            raise StoreInUseError(repr(self), "this process, by the same PostgresStore")
        self._scheduler = self._name or scheduler
        self._handlers.clear()
        self._process = os.getpid()
        try:
            self._session = session = self._connect()
            self._check_pooler(session)
            self._transact(session, self._prepare)
        except psycopg.errors.InsufficientPrivilege as error:
            self.close()
            raise StoreError(
                f"the tables of {self!r} cannot be made or used: {_text(error)}. Have them made by a role that may create "
                f"tables there, and grant this one all rights on them:\n{script()}"
            ) from error
        except BaseException as error:
            self.close()
            if isinstance(error, psycopg.Error):
                raise StoreError(f"{self!r} cannot be opened: {_text(error)}") from error
            raise

    def commit(self, operations: Sequence[Operation[Any]], /) -> list[Any]:
        """Perform operations in one transaction.

        Raises:
            OwnershipLostError: if this process is not the owner, or no longer.
            UncertainCommitError: if the connection was lost while the transaction was being committed.
            StoreError: if it is not possible for another reason.
        """
        if self._process != os.getpid() and self._session is not None:
            raise StoreError(
                f"{self!r} was opened by process {self._process}, of which this one is a fork: a connection cannot be used "
                "across a fork. Open the store in the process that uses it"
            )
        if self._session is None:
            raise StoreError(f"{self!r} is not open")
        if not self._owns:
            foreign = [operation for operation in operations if type(operation) not in VERBS]
            if foreign:
                raise OwnershipLostError(f"{self!r} is not owned by this process, which cannot perform {foreign[0]}")
        return self._commit(operations)

    def close(self) -> None:
        """Close the store and end the ownership."""
        self.resign()
        self._stop_listening()
        if self._session is not None:
            self._session.close()
        self._session = None

    def _commit(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        owns = self._owns
        session = self._candidate if owns else self._session
        assert session is not None
        handlers: dict[str, int] = {}
        setting = f"; set local lock_timeout = '{ROW_LOCK_TIMEOUT}'"
        if FORGETTABLE.issuperset(map(type, operations)):
            setting += "; set local synchronous_commit = off"

        def perform(session: Session) -> list[Any]:
            handlers.update(self._handlers)
            transaction = Transaction(self._number, self._channel, handlers, owns=owns)
            results = [run(session, transaction.perform(operation)) for operation in operations]
            run(session, transaction.announce())
            return results

        reconnected = False
        while True:
            try:
                if session.closed and not owns:
                    reconnected = True
                    self._session = session = self._connect()
                results = self._transact(session, perform, setting)
            except UncertainCommitError:
                self._owns = False  # the session has ended
                raise
            except psycopg.Error as error:
                if not session.closed or (not owns and reconnected):
                    raise StoreError(f"{self!r} cannot be written: {_text(error)}") from error
                if owns:
                    self._owns = False
                    raise OwnershipLostError(f"the session that owned {self!r} has ended: {_text(error)}") from error
                continue  # the connection was lost in the meantime: it is made again
            self._handlers = handlers  # not earlier: a transaction that was rolled back may have added some
            return results

    def _transact(self, session: Session, perform: Callable[[Session], R], setting: str = "") -> R:
        """Perform statements in a transaction, and again if it was ended because of a deadlock.

        Raises:
            ContendedError: if it would have to wait for a transaction of a user's.
            UncertainCommitError: if the connection was lost while it was being committed.
            psycopg.Error: if it has failed. Nothing has changed.
        """
        attempt = 1
        while True:
            begun = False
            try:
                # Both in one round trip.
                begin = f"begin; select pg_advisory_xact_lock({self._tables}, {self._number}){setting}"
                session.execute(begin.encode(), prepare=False)
                begun = True
                result = perform(session)
            except BaseException as error:
                with suppress(psycopg.Error):
                    session.execute("rollback", prepare=False)
                if begun and isinstance(error, psycopg.errors.LockNotAvailable):
                    raise ContendedError(
                        f"a transaction that is still open has changed the same task in {self!r}: {_text(error)}"
                    ) from error
                if isinstance(error, psycopg.errors.DeadlockDetected) and attempt < ATTEMPTS:
                    attempt += 1
                    continue
                raise
            try:
                session.execute("commit", prepare=False)
            except psycopg.Error as error:
                if session.closed:
                    raise UncertainCommitError(
                        f"the connection of {self!r} was lost during a commit, and the change may or may not be stored: "
                        f"{_text(error)}"
                    ) from error
                raise
            return result

    def _connect(self) -> Session:
        session = Session.connect(self._conninfo, autocommit=True, row_factory=tuple_row)
        try:
            if session.info.server_version < MIN_POSTGRES:
                raise StoreError(
                    f"PostgreSQL {MIN_POSTGRES // 10_000} or later is needed, not {session.info.server_version}"
                )
            session.execute(SESSION, prepare=False)
            with suppress(psycopg.errors.InvalidParameterValue):  # some operating systems do not support it
                session.execute("set client_connection_check_interval = '1s'", prepare=False)
            # It may be off by default, and then acknowledged changes would be lost when the server crashes.
            session.execute(
                "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'"
            )
        except BaseException:
            session.close()
            raise
        return session

    def _prepare(self, session: Session) -> None:
        encoding = session.info.parameter_status("server_encoding")
        if encoding not in ("UTF8", "SQL_ASCII"):
            raise StoreError(f"the database of {self!r} must have the encoding UTF8, not {encoding}")
        run(session, migrate(repr(self)))
        rows = execute(session, self._select_number())
        if not rows:
            insert = (
                "insert into anysched_scheduler (name, identity) values (%(name)s, %(identity)s) on conflict do nothing"
            )
            execute(session, Statement(insert, {"name": self._scheduler, "identity": secrets.token_hex(8)}))
            rows = execute(session, self._select_number())
        self._number = rows[0][0]
        self._tables = rows[0][1] - 2**31  # as a signed integer

    def _select_number(self) -> Statement:
        return Statement(
            "select number, 'anysched_entry'::regclass::oid::bigint from anysched_scheduler where name = %(name)s",
            {"name": self._scheduler},
        )

    async def perform_in(self, connection: object, operation: Operation[R]) -> R:
        """Perform the operation of a call in the transaction of a connection, without committing it."""
        transaction = Transaction(self._number, self._channel, dict(self._handlers), owns=False)
        return await perform_in(connection, self._perform_in(transaction, operation))

    def _perform_in(self, transaction: Transaction, operation: Operation[R]) -> Steps[R]:
        if (yield self._select_number()) != [(self._number, self._tables + 2**31)]:
            raise StoreError(f"the connection uses another database than {self!r}")
        result: R = yield from transaction.perform(operation)
        yield from transaction.announce()
        return result

    def read_names(self) -> list[str]:
        """Return the sorted names of the schedulers that have used the database. Nothing is created in it.

        Raises:
            StoreError: if it cannot be read.
        """
        try:
            with closing(self._connect()) as session:
                rows = execute(session, Statement("select to_regclass('anysched_scheduler') is not null"))
                if not rows[0][0]:
                    return []
                rows = execute(session, Statement("select name from anysched_scheduler order by name"))
        except psycopg.Error as error:
            raise StoreError(f"{self!r} cannot be read: {_text(error)}") from error
        return [name for (name,) in rows]

    # The ownership

    def contend(self) -> bool:
        """Ask for the ownership, and return whether it was acquired at once."""
        self.resign()
        try:
            self._candidate = candidate = self._connect()
            self._ownership_socket = _socket_of(candidate)
            if execute(candidate, Statement(f"select pg_try_advisory_lock({self._lock})"))[0][0]:
                self._become_owner(candidate)
                return True
            candidate.execute(WAIT_FOR_LOCK, prepare=False)
            self._send_wait(candidate)
        except psycopg.Error as error:
            self.resign()
            raise StoreError(f"{self!r} cannot be owned: {_text(error)}") from error
        except BaseException:
            self.resign()
            raise
        return False

    def acquire(self) -> bool:
        """Return whether the ownership has been acquired."""
        candidate = self._candidate
        assert candidate is not None
        try:
            candidate.pgconn.consume_input()
            if candidate.pgconn.is_busy():
                if is_overdue(self._asked):
                    candidate.close()
                    raise psycopg.OperationalError("the server has not answered")
                return False
            result = candidate.pgconn.get_result()
            while candidate.pgconn.get_result() is not None:
                pass
            if result is not None and result.status == ExecStatus.TUPLES_OK:
                self._become_owner(candidate)
                return True
            self._send_wait(candidate)  # the time has run out
        except psycopg.Error as error:
            self.resign()
            raise StoreError(
                f"the session that waited for the ownership of {self!r} has ended: {_text(error)}"
            ) from error
        return False

    def check(self) -> None:
        """Check that the ownership has not been lost."""
        candidate = self._candidate
        assert candidate is not None
        try:
            candidate.pgconn.consume_input()
        except psycopg.Error as error:
            candidate.close()
            self._owns = False
            raise OwnershipLostError(f"the session that owned {self!r} has ended: {_text(error)}") from error

    def resign(self) -> None:
        """End the ownership or the wait for it."""
        candidate, self._candidate = self._candidate, None
        if candidate is not None and not candidate.closed:
            with suppress(psycopg.Error):
                if self._owns:
                    # At once: the server may take a moment to notice that it was closed.
                    candidate.execute(f"select pg_advisory_unlock({self._lock})".encode(), prepare=False)
                else:
                    candidate.cancel_safe(timeout=2)  # the server would not notice that it was closed
            candidate.close()
        if self._ownership_socket is not None:
            self._ownership_socket.close()
            self._ownership_socket = None
        self._owns = False

    def ownership_socket(self) -> socket:
        """Return a socket that becomes readable when the ownership is acquired or lost."""
        assert self._ownership_socket is not None
        return self._ownership_socket

    @property
    def _channel(self) -> str:
        # Not the number alone: a database may have tables in several schemas.
        return f"anysched_{self._tables % 2**32}_{self._number}"

    @property
    def _lock(self) -> str:
        # Commits are serialised in the same way, with another number.
        return f"{self._tables}, {-self._number}"

    def _send_wait(self, candidate: Session) -> None:
        self._asked = time.monotonic()
        candidate.pgconn.send_query(f"select pg_advisory_lock({self._lock})".encode())

    def _become_owner(self, candidate: Session) -> None:
        candidate.execute(SESSION, prepare=False)
        owner = f"process {os.getpid()} on {gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        candidate.execute(
            "update anysched_scheduler set owner = %s, backend = pg_backend_pid(), heartbeat = clock_timestamp() "
            "where number = %s",
            [owner, self._number],
        )
        self._owns = True

    def _read_owner(self) -> str | None:
        assert self._session is not None
        statement = Statement(
            "select owner from anysched_scheduler where number = %(number)s", {"number": self._number}
        )
        owner = execute(self._session, statement)[0][0]
        return None if owner is None else str(owner)

    def _check_pooler(self, session: Session) -> None:
        """Check that each connection has its own session, which locks and notifications require.

        Raises:
            StoreError: if they share sessions.
        """
        backend = Statement("select pg_backend_pid()")
        before = execute(session, backend)
        with closing(self._connect()) as other:
            other.execute("begin", prepare=False)
            shared = execute(other, backend) == before or execute(session, backend) != before
        if shared:
            raise StoreError(
                f"{self!r} is behind a connection pooler that shares sessions, such as PgBouncer in transaction mode: the "
                "lock of the owner is lost there. Connect to PostgreSQL itself, or to a pool in session mode"
            )

    # News

    def listen(self) -> None:
        """Listen for news."""
        self._stop_listening()
        try:
            self._listener = self._connect()
            self._news_socket = _socket_of(self._listener)
            # What comes while `depose` is waited for.
            self._listener.add_notify_handler(lambda notify: self._announced.append(notify.payload))
            self._listener.execute(f"listen {self._channel}".encode(), prepare=False)
        except psycopg.Error as error:
            raise StoreError(f"{self!r} cannot be listened to: {_text(error)}") from error

    def _get_listener(self) -> Session:
        if self._listener is None:
            raise StoreError(f"{self!r} cannot be listened to: there is no connection")
        return self._listener

    def _stop_listening(self) -> None:
        if self._news_socket is not None:
            self._news_socket.close()
        if self._listener is not None:
            self._listener.close()
        self._news_socket = self._listener = None

    def depose(self) -> bool:
        """End the session of an owner that has given no sign of life; return whether there was one."""
        listener = self._get_listener()
        statement = Statement(
            "select pg_terminate_backend(l.pid) from anysched_scheduler s, pg_locks l where s.number = %(number)s "
            "and s.heartbeat < clock_timestamp() - make_interval(secs => %(after)s) and l.locktype = 'advisory' and l.granted "
            "and l.database = (select oid from pg_database where datname = current_database()) "
            "and l.classid::bigint = %(tables)s and l.objid::bigint = %(lock)s and l.objsubid = 2",
            {
                "number": self._number,
                "after": float(self._failover_after or 0),
                "tables": self._tables % 2**32,
                "lock": -self._number % 2**32,
            },
        )
        try:
            return bool(execute(listener, statement))
        except psycopg.Error as error:
            raise StoreError(f"{self!r} cannot be listened to: {_text(error)}") from error

    def receive(self) -> News:
        """Return what has been announced since the last call."""
        listener = self._get_listener()
        changed = False
        removed: set[int] = set()
        try:
            listener.pgconn.consume_input()
        except psycopg.Error as error:
            raise StoreError(f"{self!r} cannot be listened to: {_text(error)}") from error
        while (notify := listener.pgconn.notifies()) is not None:
            self._announced.append(notify.extra.decode())
        while self._announced:
            word, *generations = self._announced.pop(0).split()
            changed = changed or word == "changed"
            removed.update(map(int, generations))
        return News(changed, frozenset(removed))

    def news_socket(self) -> socket:
        """Return a socket that becomes readable when news arrive."""
        assert self._news_socket is not None
        return self._news_socket


def _socket_of(session: Session) -> socket:
    # A duplicate: libpq closes its own in any thread, and the event loop would wait for another one with the same
    # number.
    return fromfd(session.fileno(), AF_INET, SOCK_STREAM)


def _text(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
