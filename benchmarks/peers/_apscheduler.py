"""`APScheduler` 3, its `AsyncIOScheduler` with jobs in memory."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Self

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from ._peer import Work

__all__ = ["Apscheduler"]


class Apscheduler:
    """Each ID is a job with a date, which runs however late it is."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC, job_defaults={"misfire_grace_time": None})

    async def __aenter__(self) -> Self:
        self._scheduler.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._scheduler.shutdown(wait=False)

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        for task_id in ids:
            self._scheduler.add_job(work, id=str(task_id))

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler, after = self._scheduler, timedelta(seconds=delay)
        for task_id in ids:
            scheduler.add_job(work, "date", run_date=datetime.now(UTC) + after, id=str(task_id))

    async def cancel(self, ids: Iterable[int]) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.remove_job(str(task_id))

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler, after = self._scheduler, timedelta(seconds=delay)
        for task_id in ids:
            scheduler.remove_job(str(task_id))
            scheduler.add_job(work, "date", run_date=datetime.now(UTC) + after, id=str(task_id))

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        scheduler, after = self._scheduler, timedelta(seconds=delay)
        for task_id in ids:
            scheduler.reschedule_job(str(task_id), trigger="date", run_date=datetime.now(UTC) + after)
