"""A program that owns a store, for tests that stop it by a signal. ``frozen_owner.py DATABASE FAILOVER``"""

from __future__ import annotations

import logging
import sys
from typing import Any

import anyio

from anysched.durable import DurableScheduler
from anysched.durable.postgres import PostgresStore

FAILOVER_AFTER = 0.5


async def main(database: str, policy: str) -> None:
    failover: Any = policy
    scheduler = DurableScheduler("frozen", PostgresStore(database, failover=failover, failover_after=FAILOVER_AFTER))

    @scheduler.handler("work")
    async def work() -> None:
        print("begin", flush=True)
        try:
            await anyio.sleep(600)
        finally:
            print("cancelled", flush=True)

    async with scheduler:
        await scheduler.schedule("id", work)
        await anyio.sleep_forever()


if __name__ == "__main__":
    logging.getLogger("anysched").setLevel(logging.CRITICAL)
    anyio.run(main, sys.argv[1], sys.argv[2])
