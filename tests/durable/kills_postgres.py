"""Three processes with one store in PostgreSQL. The owner is killed repeatedly, and the server is restarted.

``python kills_postgres.py 300`` kills 300 owners and prints the figures. Where network namespaces are permitted, each
process is on a separate machine, whose network is cut now and then.
"""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

import anyio
from kills import Figures, Journal, Victim, examine
from network import OWN_NETWORK, Machine, Network, reason_to_skip
from postgres_server import PostgresServer

from anysched.durable import StoreError
from anysched.durable.operations import Claim, End, Operation
from anysched.durable.postgres import PostgresStore
from anysched.durable.shared import News


class JournaledPostgresStore:
    """A PostgreSQL store that writes down which tasks start, before the commit, and which have ended, after it."""

    def __init__(self, database: str, journal: Journal) -> None:
        self.store = PostgresStore(database)
        self.journal = journal
        self.joined = False

    def commit(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        for operation in operations:
            if isinstance(operation, Claim):
                self.journal.write("claim", operation.generation)
        results = self.store.commit(operations)
        for operation in operations:
            if isinstance(operation, End):
                self.journal.write("gone", operation.generation)
        return results

    @property
    def failover_after(self) -> float | None:
        return self.store.failover_after

    def depose(self) -> bool:
        return self.store.depose()

    def open(self) -> None:
        self.store.open()

    def join(self, scheduler: str) -> None:
        self.store.join(scheduler)
        self.joined = True

    def contend(self) -> bool:
        return self.store.contend()

    def acquire(self) -> bool:
        return self.store.acquire()

    def check(self) -> None:
        self.store.check()

    def resign(self) -> None:
        self.store.resign()

    def ownership_socket(self) -> socket:
        return self.store.ownership_socket()

    def listen(self) -> None:
        self.store.listen()

    def receive(self) -> News:
        return self.store.receive()

    def news_socket(self) -> socket:
        return self.store.news_socket()

    def close(self) -> None:
        self.store.close()


class Process(Victim):
    """One of the processes: it records when it becomes the owner, and continues when the store fails."""

    async def schedule_new_ids(self) -> None:
        await self.persist(super().schedule_new_ids)

    async def fight_for_an_id(self, task_id: str) -> None:
        await self.persist(super().fight_for_an_id, task_id)

    async def persist(self, function: Any, *args: Any) -> None:
        while True:
            try:
                await function(*args)
            except StoreError:
                await anyio.sleep(0.05)

    async def note_role(self) -> None:
        role = "new"
        while True:
            if self.scheduler.role != role:
                role = self.scheduler.role
                self.journal.write("role", role)
            await anyio.sleep(0.002)

    async def live(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.note_role)
            await super().live()


@dataclass
class Takeovers:
    """How long it took until another process was the owner, in seconds, sorted."""

    seconds: list[float]
    after: str

    def __str__(self) -> str:
        def at(part: float) -> str:
            return f"{self.seconds[min(math.floor(len(self.seconds) * part), len(self.seconds) - 1)]:.3f}"

        return f"take-over after {len(self.seconds)} {self.after}: p50 {at(0.5)} s, p99 {at(0.99)} s, max {at(1)} s"


def kill_owners(
    folder: Path, kills: int, seed: int, *, restarts: bool = True, network: Network | None = None
) -> tuple[Figures, list[Takeovers]]:
    """Kill the owner repeatedly, with a restart of the server every tenth time. Then let all tasks end, and check the journal.

    With a network, which has three machines, its owner is cut off every tenth time until another process has taken over,
    and any process for some seconds every tenth time.
    """
    chance = random.Random(seed)
    journal = folder / "journal"
    ours = Journal(journal)
    seconds: list[float] = []
    seconds_of_cuts: list[float] = []
    processes: dict[int, tuple[subprocess.Popen[bytes], int]] = {}
    read = 0
    owner: int | None = None
    opened: set[int] = set()
    gained = 0.0

    def start(what: str, number: int, place: int) -> subprocess.Popen[bytes]:
        backend = ("asyncio", "trio")[number % 2]
        command: Sequence[str] = (sys.executable, __file__, what, str(folder), backend, f"{seed} {number}")
        command = (*command, f"hot{place}-", database)
        if network is not None:
            command = network.machines[place].command(*command)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        process = subprocess.Popen(command, env=environment)
        processes[process.pid] = process, place
        opened.discard(process.pid)  # an earlier process may have had this number
        return process

    def cut_off(process: int) -> Machine:
        assert network is not None
        machine = network.machines[processes[process][1]]
        ours.write("cut", process)
        machine.cut()
        return machine

    def read_journal() -> None:
        nonlocal read, owner, gained
        with journal.open() as file:
            file.seek(read)
            text = file.read()
        text = text[: text.rfind("\n") + 1]
        read += len(text)
        for line in text.splitlines():
            process, moment, event, *words = line.split()
            if event == "open":
                opened.add(int(process))
            elif event == "role" and words[0] == "owner":
                owner, gained = int(process), float(moment)

    def wait_until(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, what
            assert all(process.poll() is None for process, _ in processes.values())
            time.sleep(0.005)
            read_journal()

    def wait_for_owner(former: int | None) -> None:
        nonlocal owner
        owner = former
        wait_until(lambda: owner != former and owner in processes, "there is no owner")

    def kill_all() -> None:
        for process, _ in processes.values():
            process.kill()
            process.wait()

    with PostgresServer() if network is None else network.new_server() as server, ExitStack() as stack:
        stack.callback(kill_all)
        database = server.new_database() if network is None else network.new_database(server)
        for number in range(3):
            start("live", number, number)
        wait_for_owner(None)
        for number in range(kills):
            restart = restarts and number % 10 == 9
            cut = number % 10 if network is not None else None
            # Mostly there are processes that stand by; sometimes they are only starting. A start needs the server.
            if restart or cut in (4, 7) or chance.random() < 0.8:
                wait_until(lambda: processes.keys() <= opened, "a process does not open the store")
            time.sleep(chance.random() * 0.5)
            if restart:
                server.stop(chance.choice([signal.SIGINT, signal.SIGQUIT]))
                server.start()
                wait_for_owner(None)
            assert owner is not None
            if cut == 4:
                began = time.monotonic()
                machine = cut_off(owner)
                wait_for_owner(owner)
                seconds_of_cuts.append(gained - began)
                machine.mend()
            elif cut == 7:
                # Some notice it, and some have what was lost sent again.
                machine = cut_off(chance.choice(sorted(processes)))
                time.sleep(chance.random() * 8)
                machine.mend()
                read_journal()
            assert owner is not None
            victim, place = processes.pop(owner)
            assert victim.poll() is None
            killed = time.monotonic()
            ours.write("killed", process=victim.pid)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            start("live", 3 + number, place)
            wait_for_owner(owner)
            if gained > killed:  # else the cut had already ended its ownership
                seconds.append(gained - killed)
        for process, _ in processes.values():
            ours.write("killed", process=process.pid)
        kill_all()
        processes.clear()
        assert start("drain", 0, 0).wait(240) == 0
    takeovers = [Takeovers(sorted(seconds), "kills")]
    if seconds_of_cuts:
        takeovers.append(Takeovers(sorted(seconds_of_cuts), "cuts of the network"))
    return examine(journal.read_text().splitlines(), kills), takeovers


def main(arguments: list[str]) -> None:
    if arguments[0] in ("live", "drain"):
        what, folder, backend, seed, hot, database = arguments
        logging.getLogger("anysched").setLevel(logging.CRITICAL)
        journal = Journal(Path(folder) / "journal")
        for attempt in range(3):
            store = JournaledPostgresStore(database, journal)
            process = Process(journal, store, seed, hot=hot)
            try:
                anyio.run(process.live if what == "live" else process.drain, backend=backend)
            except* StoreError:
                # After a cut, the first connection may be reset. Like a supervisor, start again if it did not open.
                if store.joined or attempt == 2:
                    raise
            else:
                break
        return
    kills, *inside = arguments
    if not inside and (reason := reason_to_skip()) is None:
        os.execvp(OWN_NETWORK[0], [*OWN_NETWORK, sys.executable, __file__, kills, "inside"])
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if inside:
            network = stack.enter_context(Network(3))
        else:
            print(f"Without cuts of the network: {reason}.")
            network = None
        figures, takeovers = kill_owners(Path(folder), int(kills), time.time_ns(), network=network)
    print(figures, *takeovers, sep="\n")
    for problem in (*figures.violations, *figures.lost):
        print(problem)
    if figures.violations or figures.lost:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
