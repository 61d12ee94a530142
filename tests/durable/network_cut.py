"""A machine whose process owns two stores in PostgreSQL vanishes from the network: what happens, and when.

``unshare --net python network_cut.py`` prints it, as seconds since the cut. One store has ``failover="safe"``, and one
``failover="prompt"``. In the second cut, the owner makes a call shortly before TCP gives up: it waits longer then.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from kills import Journal
from network import Machine, Network

from anysched.durable import DurableScheduler, StoreError, current_run
from anysched.durable.postgres import PostgresStore

FAILOVER_AFTER = 5.0
POLICIES = ("safe", "prompt")
CALL_AFTER = 1.5


class Errors(logging.Handler):
    """Writes errors to the journal."""

    def __init__(self, journal: Journal, policy: str) -> None:
        super().__init__(logging.ERROR)
        self.journal = journal
        self.policy = policy

    def emit(self, record: logging.LogRecord) -> None:
        self.journal.write("error", self.policy, *record.getMessage().split())


async def live(database: str, journal: Journal, call: Path, policy: Any) -> None:
    """Own the store or stand by; record what happens."""
    store = PostgresStore(database, name=policy, failover=policy, failover_after=FAILOVER_AFTER)
    scheduler = DurableScheduler(f"cut.{policy}", store)
    logging.getLogger(f"anysched.cut.{policy}").addHandler(Errors(journal, policy))

    @scheduler.handler("work")
    async def work() -> None:
        journal.write("begin", policy, current_run().attempt)
        try:
            await anyio.sleep_forever()
        finally:
            journal.write("cancelled", policy)

    async with scheduler:
        if scheduler.role == "owner":
            await scheduler.schedule("id", work)
        while True:
            journal.write("role", policy, scheduler.role)
            role = scheduler.role
            while scheduler.role == role:
                await anyio.sleep(0.002)
                if role == "owner" and call.exists():
                    with suppress(StoreError):
                        await scheduler.cancel("other")


async def live_twice(database: str, folder: str) -> None:
    journal = Journal(Path(folder) / "journal")
    call = Path(folder) / f"call-{os.getpid()}"
    async with anyio.create_task_group() as group:
        for policy in POLICIES:
            group.start_soon(live, database, journal, call, policy)


class Story:
    """Reads the journal."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal"
        self.processes: list[subprocess.Popen[bytes]] = []

    def events(self, process: int, event: str) -> list[tuple[float, str]]:
        """Return the times and words of the events of a kind."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            writer, moment, word, *words = line.split(maxsplit=3)
            if int(writer) == process and word == event:
                found.append((float(moment), " ".join(words)))
        return found

    def owns(self, process: int, policy: str) -> bool:
        """Return whether a process is the owner: on a busy machine, one may be deposed that is not cut off."""
        return [words for _, words in self.events(process, "role") if words.startswith(policy)][-1:] == [
            f"{policy} owner"
        ]

    def wait_for(self, process: int, event: str, words: str, *, since: float = 0.0) -> float:
        """Wait for an event that begins with words, and return its time."""
        deadline = time.monotonic() + 120
        while True:
            for moment, found in self.events(process, event):
                if moment >= since and found.startswith(words):
                    return moment
            assert time.monotonic() < deadline, f"there is no {event} {words}:\n{self.path.read_text()}"
            assert all(process.poll() is None for process in self.processes)
            time.sleep(0.01)

    def start(self, machine: Machine, backend: str, database: str) -> int:
        arguments = (sys.executable, __file__, database, str(self.path.parent), backend)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        process = subprocess.Popen(machine.command(*arguments), env=environment)
        self.processes.append(process)
        return process.pid


def cut(folder: Path, say: Callable[[str], None]) -> None:
    """Cut the owner off, plug it in again, and cut the other one off."""
    story = Story(folder)
    with Network(2) as network, network.new_server() as server:
        database = network.new_database(server)
        try:
            machines = network.machines
            one = story.start(machines[0], "asyncio", database)
            for policy in POLICIES:
                story.wait_for(one, "begin", f"{policy} 1")
            other = story.start(machines[1], "trio", database)
            for policy in POLICIES:
                story.wait_for(other, "role", f"{policy} standby")
            cut_and_take_over(story, machines[0], one, other, say)
            back = time.monotonic()
            machines[0].mend()
            for policy in POLICIES:  # no new process: it is heard by the server again
                wait_until_listening(story, server.execute, database, policy)
            say(f"back: after {time.monotonic() - back:.1f} s")
            cut_and_take_over(story, machines[1], other, one, say, call=True)
        finally:
            for process in story.processes:
                process.kill()
                process.wait()


def wait_until_listening(story: Story, execute: Callable[..., Any], database: str, policy: str) -> None:
    """Wait until two sessions are those of candidates for a store: one has its lock, and another one waits for it."""
    statement = (
        f"select count(*) from pg_locks l, anysched_scheduler s where s.name = '{policy}' and l.locktype = 'advisory' "
        "and l.objid::bigint = -s.number::bigint + 4294967296"
    )
    deadline = time.monotonic() + 120
    while execute(statement, database) != [(2,)]:
        assert time.monotonic() < deadline, "the process that was cut off does not stand by again"
        assert all(process.poll() is None for process in story.processes)
        time.sleep(0.05)


def cut_and_take_over(
    story: Story, machine: Machine, owner: int, other: int, say: Callable[[str], None], *, call: bool = False
) -> None:
    """Cut the machine of the owner off, and wait for the events that must follow."""
    start = time.monotonic()
    machine.cut()
    owned = [policy for policy in POLICIES if story.owns(owner, policy)]
    if call:
        time.sleep(CALL_AFTER)
        (story.path.parent / f"call-{owner}").touch()
    for policy in POLICIES:
        if policy not in owned:
            say(f"{policy}: it was owned elsewhere")
            continue
        noticed = story.wait_for(owner, "error", f"{policy} Lost the ownership of the store", since=start) - start
        cancelled = story.wait_for(owner, "cancelled", policy, since=start) - start
        begun = story.wait_for(other, "begin", policy, since=start) - start
        say(
            f"{policy}: noticed after {noticed:.1f} s, cancelled after {cancelled:.1f} s, run again elsewhere after "
            f"{begun:.1f} s"
        )
        story.wait_for(owner, "role", f"{policy} standby", since=start)


def main(arguments: list[str]) -> None:
    if arguments:
        database, folder, backend = arguments
        anyio.run(live_twice, database, folder, backend=backend)
        return
    with tempfile.TemporaryDirectory() as folder:
        cut(Path(folder), lambda text: print(text, flush=True))


if __name__ == "__main__":
    main(sys.argv[1:])
