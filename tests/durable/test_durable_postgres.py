"""The store in PostgreSQL, on a real server."""

from __future__ import annotations

import itertools
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import psycopg
import pytest
from postgres_server import PostgresServer
from test_durable_stores import StoreMachine, run_contract

from anysched.durable import DurableScheduler, StoreError, StoreInUseError, postgres_schema
from anysched.durable import postgres as postgres_module
from anysched.durable.errors import OwnershipLostError, UncertainCommitError
from anysched.durable.operations import (
    Adopt,
    Cancel,
    CancelAll,
    Claim,
    End,
    Existing,
    Find,
    IsEmpty,
    List,
    Load,
    Move,
    Park,
    Pause,
    Placed,
    Put,
    Recover,
    Release,
    Resume,
    Retry,
    Seen,
    Shelve,
)
from anysched.durable.postgres import PostgresStore
from anysched.durable.postgres_connections import execute
from anysched.durable.postgres_operations import Transaction
from anysched.durable.shared import Beat, News, Notices, TakeNotices, Watch
from anysched.durable.steps import Statement
from anysched.durable.store import Store


class PostgresMachine(StoreMachine):
    server: ClassVar[PostgresServer]
    database: ClassVar[str | None] = None

    def __init__(self) -> None:
        super().__init__()
        if self.database is None:
            type(self).database = self.server.new_database()
        else:
            tables = ", ".join(f"anysched_{table}" for table in ("entry", "handler", "notice", "scheduler"))
            self.server.execute(f"truncate {tables} restart identity", self.database)
        self.names = map("scheduler{}".format, itertools.count(1))

    def make(self) -> Store:
        assert self.database is not None
        return PostgresStore(self.database, name=next(self.names))


@pytest.fixture(autouse=True, scope="module")
def _server(postgres: PostgresServer) -> Iterator[None]:
    PostgresMachine.server = postgres
    yield
    PostgresMachine.database = None


TestPostgres: Any = run_contract(PostgresMachine, max_examples=15)


PUT = Put('"a"', 1, 1, "send", "[]")


@pytest.fixture
def stores(database: str) -> Iterator[Callable[[], PostgresStore]]:
    """Makes stores, as those of several processes, and closes them."""
    made: list[PostgresStore] = []

    def make(**options: Any) -> PostgresStore:
        made.append(PostgresStore(database, name="test", **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


def join(store: PostgresStore) -> PostgresStore:
    store.join("test")
    return store


def wait_readable(found: socket.socket) -> None:
    assert select.select([found], [], [], 30)[0]


# Opening


def test_several_schedulers_share_a_database(database: str) -> None:
    one, other = PostgresStore(database, name="one"), PostgresStore(database, name="other")
    one.open()
    other.open()
    one.commit([PUT])
    assert other.commit([IsEmpty()]) == [True]
    assert one.commit([IsEmpty()]) == [False]
    (first,), (second,) = (store.commit([Recover(frozenset(), 5)]) for store in (one, other))
    assert first.unknown == {"send": 1}
    assert second.unknown == {}
    assert first.identity != second.identity
    one.close()
    other.close()


def test_the_name_is_that_of_the_scheduler_or_of_the_store(database: str) -> None:
    store = PostgresStore(database)
    store.join("jobs")
    assert repr(store).endswith("name='jobs')")
    assert "user" not in repr(store)
    with pytest.raises(StoreInUseError):
        store.join("jobs")
    store.close()
    named = PostgresStore(database, name="named")
    named.join("jobs")
    assert repr(named).endswith("name='named')")
    named.close()
    assert repr(PostgresStore()) == "PostgresStore('the default', name='default')"


def test_the_owner_is_named(stores: Any) -> None:
    store, other = stores(), stores()
    store.open()
    with pytest.raises(StoreInUseError, match=r"is in use by process \d+ on .*, since "):
        other.open()
    store.close()
    other.open()


def test_an_owner_that_is_not_known(stores: Any, postgres: PostgresServer, database: str) -> None:
    store, other = stores(), stores()
    store.open()
    postgres.execute("update anysched_scheduler set owner = null", database)
    with pytest.raises(StoreInUseError, match="by another process"):
        other.open()


def test_ten_processes_start_at_once(database: str) -> None:
    code = f"""
from anysched.durable.operations import Put
from anysched.durable.postgres import PostgresStore
from anysched.durable.postgres_connections import execute
store = PostgresStore({database!r})
store.join("test")
store.commit([Put('"a"', 1, 1, "send", "[]")])
store.close()
"""
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", code]) for _ in range(10)]
    assert [process.wait(60) for process in processes] == [0] * 10


def test_what_cannot_be_reached_is_refused(database: str, postgres: PostgresServer) -> None:
    with pytest.raises(StoreError, match=r"cannot be opened: .*Connection refused"):
        PostgresStore("host=127.0.0.1 port=9").open()
    with pytest.raises(ValueError, match="conninfo cannot be parsed: "):
        PostgresStore("nonsense")
    postgres.execute("create database latin encoding latin1 template template0")
    with pytest.raises(StoreError, match="must have the encoding UTF8, not LATIN1"):
        PostgresStore(postgres.conninfo("latin")).open()
    postgres.execute("drop database latin")


def test_a_role_that_may_not_create_tables_gets_the_statements(
    stores: Any, database: str, postgres: PostgresServer
) -> None:
    # Before PostgreSQL 15, everyone may create tables in the schema `public`.
    postgres.execute("revoke create on schema public from public", database)
    postgres.execute("drop role if exists guest")
    postgres.execute("create role guest login")
    guest = PostgresStore(database.replace("user=postgres", "user=guest"))
    with pytest.raises(StoreError, match=r"cannot be made or used: .*permission denied") as caught:
        guest.open()
    script = str(caught.value).partition(":\n")[2]
    postgres.execute(script, database)
    postgres.execute("grant all on all tables in schema public to guest", database)
    guest.open()
    guest.commit([PUT])
    guest.close()
    postgres.execute("drop owned by guest; drop role guest", database)


def test_a_newer_database_is_refused(stores: Any, database: str, postgres: PostgresServer) -> None:
    store = stores()
    store.open()
    store.close()
    postgres.execute("update anysched_meta set value = 99 where key = 'schema'", database)
    with pytest.raises(StoreError, match=r"has version 99 of the schema, and this release of anysched knows \d+"):
        store.open()
    postgres.execute("update anysched_meta set value = 1 where key = 'schema'", database)
    store.open()


def test_an_older_database_is_migrated(
    stores: Any, database: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores()
    store.open()
    store.commit([PUT])
    store.close()
    column = "alter table anysched_entry add column note text"
    with monkeypatch.context() as patch:
        patch.setattr(postgres_schema, "MIGRATIONS", (*postgres_schema.MIGRATIONS, (column, "nonsense")))
        with pytest.raises(StoreError, match="cannot be opened: syntax error"):
            store.open()
    monkeypatch.setattr(postgres_schema, "MIGRATIONS", (*postgres_schema.MIGRATIONS, (column,)))
    store.open()
    assert store.commit([IsEmpty()]) == [False]
    assert postgres.execute("select note from anysched_entry", database) == [(None,)]
    assert postgres.execute("select value from anysched_meta where key = 'schema'", database) == [(2,)]


def test_an_older_server_is_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "MIN_POSTGRES", 990_000)
    with pytest.raises(StoreError, match="PostgreSQL 99 or later is needed"):
        PostgresStore(database).open()


def test_without_psycopg_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['psycopg'] = None; import anysched.durable.postgres"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "anysched.durable.postgres needs psycopg: pip install 'anysched[postgres]'" in run.stderr


def test_a_pooler_that_shares_sessions_is_refused(database: str, pgbouncer: Callable[[str, str], str]) -> None:
    with pytest.raises(StoreError, match="is behind a connection pooler that shares sessions"):
        PostgresStore(pgbouncer(database, "transaction")).open()


def test_a_pooler_in_session_mode_can_be_used(database: str, pgbouncer: Callable[[str, str], str]) -> None:
    pooled = pgbouncer(database, "session")
    store = PostgresStore(pooled, name="test")
    store.open()
    other = join(PostgresStore(pooled))
    assert store.commit([PUT, Claim(1, 1)])[1].attempts == 1
    assert not other.contend()
    store.close()
    wait_readable(other.ownership_socket())
    assert other.acquire()
    other.close()


# Owning


def test_who_is_not_the_owner_performs_verbs_only(stores: Any) -> None:
    owner, other = stores(), join(stores())
    owner.open()
    assert owner.commit([TakeNotices()]) == [Notices((), (), all=False)]
    (added,) = other.commit([PUT])
    with pytest.raises(OwnershipLostError, match="is not owned by this process, which cannot perform Claim"):
        other.commit([IsEmpty(), Claim(1, 1)])
    assert owner.commit([TakeNotices()]) == [Notices((), (Placed(1, '"a"', 1, ready=True),), all=False)]
    (entry,) = owner.commit([Claim(added.entry.generation, 1)])
    assert entry.attempts == 1
    other.commit([Put('"a"', 2, 2, "send", "[]", on_conflict="follow")])
    other.commit([Put('"a"', 3, 3, "send", "[]", on_conflict="replace"), Put('"b"', 4, 4, "send", "[]")])
    other.commit([Move('"b"', 5), Cancel('"nothing"')])
    (notices,) = owner.commit([TakeNotices()])
    # The successor of one that runs may be placed: the scheduler lets it wait.
    assert notices.removed == (2,)
    assert notices.placed == (
        Placed(1, '"a"', 1, ready=False), Placed(3, '"a"', 3, ready=True), Placed(4, '"b"', 5, ready=True),
    )  # fmt: skip
    other.commit([CancelAll(leave=True)])
    (notices, existing) = owner.commit([TakeNotices(), Existing((1, 3, 4))])
    assert notices.all
    assert existing == {1}


def test_the_ownership_passes_when_the_owner_closes(stores: Any) -> None:
    owner, standby = stores(), join(stores())
    owner.open()
    assert not standby.contend()
    owner.close()
    wait_readable(standby.ownership_socket())
    assert standby.acquire()
    assert standby.commit([PUT, Claim(1, 1)])[1].attempts == 1


def test_the_wait_for_the_ownership_is_renewed(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that waits for long would keep VACUUM from its work."""
    monkeypatch.setattr(postgres_module, "WAIT_FOR_LOCK", "set lock_timeout = '50ms'")
    owner, standby = stores(), join(stores())
    owner.open()
    assert not standby.contend()
    for _ in range(3):
        assert not standby.acquire()  # there is no answer yet
        wait_readable(standby.ownership_socket())
        assert not standby.acquire()
    owner.close()
    wait_readable(standby.ownership_socket())
    while not standby.acquire():
        wait_readable(standby.ownership_socket())


def test_who_has_lost_the_session_can_store_nothing(stores: Any, postgres: PostgresServer, database: str) -> None:
    owner, standby = stores(), join(stores())
    owner.open()
    owner.commit([PUT])
    owner.check()
    assert not standby.contend()
    postgres.execute("select pg_terminate_backend(backend) from anysched_scheduler", database)
    wait_readable(standby.ownership_socket())
    assert standby.acquire()
    with pytest.raises(OwnershipLostError, match=r"the session that owned .* has ended: terminating connection"):
        owner.commit([Claim(1, 1)])
    with pytest.raises(OwnershipLostError, match="is not owned by this process"):
        owner.commit([Claim(1, 1)])
    assert owner.commit([Find('"a"')])[0].attempts == 0
    assert not owner.contend()


def test_a_lost_session_is_noticed_while_nothing_is_committed(
    stores: Any, postgres: PostgresServer, database: str
) -> None:
    owner = stores()
    owner.open()
    postgres.execute("select pg_terminate_backend(backend) from anysched_scheduler", database)
    with pytest.raises(OwnershipLostError, match=r"the session that owned .* has ended"):
        for _ in range(100):
            wait_readable(owner.ownership_socket())
            owner.check()


def test_a_session_that_waits_may_be_lost(stores: Any, postgres: PostgresServer, database: str) -> None:
    owner, standby = stores(), join(stores())
    owner.open()
    assert not standby.contend()
    postgres.execute(
        "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and not granted", database
    )
    with pytest.raises(StoreError, match=r"the session that waited for the ownership of .* has ended"):
        for _ in range(100):
            wait_readable(standby.ownership_socket())
            standby.acquire()
    assert not standby.contend()


def test_a_session_for_verbs_is_made_again(stores: Any, postgres: PostgresServer, database: str) -> None:
    store = join(stores())
    store.commit([PUT])
    terminate = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()"
    for _ in range(2):
        postgres.execute(terminate, database)
        assert store.commit([IsEmpty()]) == [False]
    postgres.execute(terminate, database)
    assert store.contend()
    store.resign()
    postgres.execute("update pg_database set datallowconn = false where datname = current_database()", database)
    postgres.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'anysched' ")
    with pytest.raises(StoreError, match=r"cannot be written: .*not currently accepting connections"):
        store.commit([IsEmpty()])
    with pytest.raises(StoreError, match=r"cannot be owned: .*not currently accepting connections"):
        store.contend()
    with pytest.raises(StoreError, match=r"cannot be listened to: .*not currently accepting connections"):
        store.listen()
    postgres.execute("update pg_database set datallowconn = true")
    assert store.commit([IsEmpty()]) == [False]


def test_what_is_watched_is_announced(stores: Any, postgres: PostgresServer, database: str) -> None:
    owner, other = stores(), join(stores())
    owner.open()
    other.listen()
    owner.commit([PUT, Put('"b"', 1, 1, "send", "[]"), Put('"c"', 1, 1, "send", "[]")])
    assert other.commit([Watch(1), Watch(2), Watch(4)]) == [True, True, False]
    owner.commit([Claim(1, 1), End(1), Cancel('"b"'), Cancel('"c"')])
    wait_readable(other.news_socket())
    assert other.receive() == News(changed=False, removed=frozenset({1, 2}))
    other.commit([PUT])
    wait_readable(other.news_socket())
    assert other.receive() == News(changed=True, removed=frozenset())
    other.commit([Watch(4)])
    owner.commit([CancelAll()])
    wait_readable(other.news_socket())
    assert other.receive() == News(changed=False, removed=frozenset({4}))
    postgres.execute("select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen%'", database)
    with pytest.raises(StoreError, match="cannot be listened to"):
        for _ in range(100):
            wait_readable(other.news_socket())
            other.receive()
    other.listen()
    assert other.receive() == News(changed=False, removed=frozenset())
    for call in (owner.receive, owner.depose):
        with pytest.raises(StoreError, match="cannot be listened to: there is no connection"):
            call()


def test_nothing_is_announced_to_another_schema(postgres: PostgresServer) -> None:
    with postgres.new_schema() as here, postgres.new_schema() as there:
        (one, waiting), other = (PostgresStore(here, name="test") for _ in range(2)), PostgresStore(there, name="test")
        one.open()
        other.open()
        join(waiting)
        waiting.listen()
        for store in (one, other):
            store.commit([PUT, Watch(1)])
        other.commit([Cancel('"a"')])
        one.commit([Put('"b"', 1, 1, "send", "[]"), Watch(2)])
        one.commit([Cancel('"b"')])
        wait_readable(waiting.news_socket())
        assert waiting.receive() == News(changed=False, removed=frozenset({2}))
        for store in (one, waiting, other):
            store.close()


# Committing


def test_a_commit_whose_answer_is_lost_may_have_happened(stores: Any, postgres: PostgresServer, database: str) -> None:
    """The session is ended by a trigger that is deferred to the commit."""
    store = stores()
    store.open()
    postgres.execute(
        "create function end_session() returns trigger language plpgsql as "
        "'begin perform pg_terminate_backend(pg_backend_pid()); return null; end'; "
        "create constraint trigger ending after insert on anysched_entry deferrable initially deferred "
        "for each row execute function end_session()",
        database,
    )
    with pytest.raises(UncertainCommitError, match="was lost during a commit, and the change may or may not be stored"):
        store.commit([PUT])
    with pytest.raises(UncertainCommitError):
        store.commit([PUT])
    assert store.commit([IsEmpty()]) == [True]


def test_a_commit_that_is_refused_changes_nothing(stores: Any, postgres: PostgresServer, database: str) -> None:
    store = stores()
    store.open()
    postgres.execute(
        "create function refuse() returns trigger language plpgsql as 'begin raise ''no''; end'; "
        "create constraint trigger ending after insert on anysched_entry deferrable initially deferred "
        "for each row execute function refuse()",
        database,
    )
    with pytest.raises(StoreError, match="cannot be written: no"):
        store.commit([PUT])
    assert store.commit([IsEmpty()]) == [True]
    with pytest.raises(KeyError):
        store.commit([Seen(1), object()])


def test_a_transaction_of_a_user_holds_up_its_own_ids_only(stores: Any, database: str) -> None:
    store = stores()
    store.open()
    store.commit([PUT, Put('"b"', 1, 1, "send", "[]")])
    with psycopg.connect(database) as connection:
        connection.execute("delete from anysched_entry where id = '\"a\"'")
        assert store.commit([Cancel('"b"')])[0] is not None
        connection.execute("set lock_timeout = '10s'")
        store._candidate.execute("set lock_timeout = '50ms'")
        with pytest.raises(StoreError, match="canceling statement due to lock timeout"):
            store.commit([Cancel('"a"')])


def test_a_deadlock_with_a_transaction_of_a_user_is_tried_again(
    stores: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "ROW_LOCK_TIMEOUT", "10s")  # the deadlock is found before
    store = stores()
    store.open()
    store.commit([PUT, Put('"b"', 1, 1, "send", "[]")])
    moved: list[Any] = []
    with psycopg.connect(database) as connection:
        connection.execute("set deadlock_timeout = '20s'")  # not this one is ended
        connection.execute("update anysched_entry set due = 7 where id = '\"a\"'")
        thread = threading.Thread(target=lambda: moved.extend(store.commit([Move('"b"', 8), Move('"a"', 9)])))
        thread.start()
        while not connection.execute("select 1 from pg_locks where not granted").fetchall():
            pass
        connection.execute("update anysched_entry set due = 7 where id = '\"b\"'")
    thread.join()
    assert [placed.due for placed in moved] == [8, 9]
    assert [entry.due for entry in store.commit([Find('"b"'), Find('"a"')])] == [8, 9]


def test_problems_may_be_any_text(stores: Any) -> None:
    store = stores()
    store.open()
    store.commit([PUT, Claim(1, 1), Park(1, "a \0 and \udc80 and é")])
    assert store.commit([Find('"a"')])[0].problem == "a \\x00 and \\udc80 and é"


RECORD_SETTING = """
    create table recorded (number serial, value text);
    create function record() returns trigger language plpgsql as
        'begin insert into recorded (value) values (current_setting(''synchronous_commit'')); return null; end';
    create trigger recording after delete on anysched_notice for each statement execute function record()
"""


def test_only_what_may_be_lost_in_a_crash_is_not_waited_for(
    stores: Any, postgres: PostgresServer, database: str
) -> None:
    store = stores()
    store.open()
    postgres.execute(RECORD_SETTING, database)
    for operations in (
        [TakeNotices()],
        [TakeNotices(), Seen(1), Beat()],
        [PUT, TakeNotices()],
        [TakeNotices(), IsEmpty()],
    ):
        store.commit(operations)
    values = postgres.execute("select value from recorded order by number", database)
    assert values == [("off",), ("off",), ("on",), ("on",)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_is_refused(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stores()
    store.open()
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: -1)
        with pytest.raises(StoreError, match="of which this one is a fork"):
            store.commit([PUT])


def test_the_frequent_queries_use_their_indexes(stores: Any, database: str) -> None:
    store = stores()
    store.open()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "insert into anysched_entry (scheduler, id, due, time, handler, args) "
            "select 1, '\"' || n || '\"', n, n, 1, '[]' from generate_series(1, 20000) n"
        )
        connection.execute("analyze anysched_entry")
        store.commit([Put('"a"', 1, 1, "send", "[]")])
        statements: list[Statement] = []
        transaction = Transaction(1, "channel", {"send": 1}, owns=False)
        operations: list[Any] = [
            Put('"a"', 1, 1, "send", "[]", on_conflict="follow"), Put('"a"', 1, 1, "send", "[]"), Cancel('"1"'),
            Cancel('"2"', leave=True), Move('"3"', 2), Pause('"3"'), Resume('"3"'), Retry('"3"'), Claim(5, 5), End(5),
            End(5), End(6, True, 5, 5), Park(7, "problem"), Release(8, True), Shelve(8), Find('"9"'),
            Find(generation=9), List("", "\x7f", False, 5), Load(0, 0, 10), Recover(frozenset({"send"}), 5), Adopt("send"),
            TakeNotices(), Existing((1, 2)), Watch(10),
        ]  # fmt: skip
        for operation in operations:
            steps = transaction.perform(operation)
            statement = next(steps)
            try:
                while True:
                    statements.append(statement)
                    statement = steps.send(execute(connection, statement))
            except StopIteration:
                pass
        for statement in statements:
            plan = str(connection.execute(f"explain {statement.text}".encode(), statement.values).fetchall())
            assert "Seq Scan on anysched_entry" not in plan, (statement, plan)


def test_a_scheduler_is_made_without_an_event_loop() -> None:
    scheduler = DurableScheduler("reminders", PostgresStore("postgresql:///app"))
    assert scheduler.state == "new"


def answer(steps: Any, *answers: Any) -> Any:
    """Return the result of an operation whose statements get these answers."""
    next(steps)
    with pytest.raises(StopIteration) as caught:
        for rows in answers:
            steps.send(rows)
    return caught.value.value


def test_sessions_that_are_faster() -> None:
    """What was found is gone when it is looked at again."""
    transaction = Transaction(1, "channel", {"send": 1}, owns=True)
    result = answer(transaction.perform(PUT), [], [], [(7, False)])
    assert (result.added, result.entry.generation) == (True, 7)
    result = answer(transaction.perform(Put('"a"', 1, 1, "send", "[]", on_conflict="replace")), [], [], [(8, False)])
    assert (result.added, result.removed) == (True, None)
    result = answer(transaction.perform(End(7, True, 5, 5)), [], [(7, '"a"', 5, True)])
    assert (result.removed, result.next) == (False, Placed(7, '"a"', 5, ready=True))
    assert answer(transaction.perform(End(7, True, 5, 5, '"a"')), [], [], [], []).removed


def test_the_ownership_cannot_be_asked_for(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = join(stores())
    with monkeypatch.context() as patch:
        patch.setattr(postgres_module, "MIN_POSTGRES", 990_000)
        with pytest.raises(StoreError, match="PostgreSQL 99 or later is needed"):
            store.contend()
    assert store.contend()


def test_nothing_is_deposed_without_a_connection(stores: Any, postgres: PostgresServer, database: str) -> None:
    store = join(stores(failover="prompt"))
    store.listen()
    assert not store.depose()
    postgres.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_locks l%' and pid <> pg_backend_pid()",
        database,
    )
    with pytest.raises(StoreError, match="cannot be listened to"):
        store.depose()


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=ascii)
def test_the_name_of_a_store_is_text(name: str) -> None:
    with pytest.raises(ValueError, match="the name of a PostgresStore cannot be stored: it contains"):
        PostgresStore("", name=name)
