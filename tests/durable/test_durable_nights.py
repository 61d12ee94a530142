"""In the nights when clocks are changed, durable tasks run when those of the core do."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import anyio
import pytest

from anysched import Scheduler
from anysched.cron import Cron
from anysched.durable import DurableScheduler, Store
from anysched.testing import VirtualClock

pytestmark = pytest.mark.anyio

PARIS = ZoneInfo("Europe/Paris")
DAY = timedelta(days=1)


@pytest.mark.parametrize("month", [3, 10])
async def test_in_both_nights_each_verb_runs_when_that_of_the_core_does(
    virtual_clock: VirtualClock, store: Store, month: int
) -> None:
    night = datetime(2025, 3, 30, 2, 30, tzinfo=PARIS) if month == 3 else datetime(2025, 10, 26, 2, 30, tzinfo=PARIS)
    await virtual_clock.travel_to(night - DAY)
    ours: list[tuple[datetime, str]] = []
    theirs: list[tuple[datetime, str]] = []

    async def note(runs: list[tuple[datetime, str]], name: str) -> None:
        runs.append((virtual_clock.now(), name))

    durable = DurableScheduler("durable", store)
    kept = durable.handler("note")(partial(note, theirs))
    async with Scheduler("core") as core, durable:
        for fold in (0, 1):
            core.schedule_at(night.replace(fold=fold), ("at", fold), note, ours, f"at {fold}")
            await durable.schedule_at(night.replace(fold=fold), ("at", fold), kept, f"at {fold}")
        core.schedule_later(DAY, "later", note, ours, "later")
        await durable.schedule_later(DAY, "later", kept, "later")
        core.schedule_every(DAY, "every", note, ours, "every")
        await durable.schedule_every(DAY, "every", kept, "every")
        core.schedule_at_times(Cron("30 2 * * *", PARIS), "cron", note, ours, "cron")
        await durable.schedule_at_times(Cron("30 2 * * *", PARIS), "cron", kept, "cron")
        core.schedule_later(60, "moved", note, ours, "moved")
        core.reschedule_at(night, "moved")
        await durable.schedule_later(60, "moved", kept, "moved")
        await durable.reschedule_at(night, "moved")
        await anyio.sleep(2.1 * 86_400)
    assert len(ours) == 8
    assert sorted(theirs) == sorted(ours)
