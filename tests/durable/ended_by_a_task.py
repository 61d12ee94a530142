"""A program whose process is ended by a handler, for tests. ``ended_by_a_task.py STORE LOOP HOST HOW``"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import anyio
from anyio import to_thread

from anysched.durable import DurableScheduler, SQLiteStore, Store, current_run


def open_store(place: str) -> Store:
    if place.endswith(".db"):
        return SQLiteStore(place, synchronous="normal")
    from anysched.durable.postgres import PostgresStore

    return PostgresStore(place)


async def main(place: str, host: str, how: str) -> None:
    scheduler = DurableScheduler("ended", open_store(place))
    again = anyio.Event()

    @scheduler.handler("work")
    async def work() -> None:
        attempt = current_run().attempt
        print("attempt", attempt, flush=True)
        if attempt > 1:
            again.set()
        elif how == "SystemExit":
            raise SystemExit(3)
        elif how == "KeyboardInterrupt":
            raise KeyboardInterrupt
        else:
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep_forever()

    async def use() -> None:
        await scheduler.schedule("id", work)
        await again.wait()

    try:
        if host == "start":
            await scheduler.start()
            try:
                await use()
            finally:
                with anyio.CancelScope(shield=True):
                    await scheduler.close()
        else:
            async with scheduler:
                await use()
    finally:
        with anyio.CancelScope(shield=True):
            # The program itself uses a thread, after the scheduler.
            await to_thread.run_sync(print, scheduler.state)


if __name__ == "__main__":
    place, loop, host, how = sys.argv[1:]
    if loop == "asyncio":
        asyncio.run(main(place, host, how))
    else:
        options: dict[str, Any] = {"use_uvloop": True} if loop == "uvloop" else {}
        backend = "trio" if loop == "trio" else "asyncio"
        anyio.run(main, place, host, how, backend=backend, backend_options=options)
