"""`anysched`, given coroutine objects, as pydis_core is; and given functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from anysched import ScheduledTask, Scheduler
from anysched.abc import FinishedRun, Instrument, StartedRun
from anysched.history import History

from ._peer import Work

__all__ = ["Coroutines", "Functions", "Instrumented", "WithHistory", "WithTelemetry"]


class _Anysched:
    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._scheduler = Scheduler("bench", instruments=instruments)

    async def __aenter__(self) -> Self:
        await self._scheduler.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._scheduler.__aexit__(None, None, None)

    async def cancel(self, ids: Iterable[int]) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.cancel(task_id)

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.reschedule_later(delay, task_id)


class Coroutines(_Anysched):
    """Schedules coroutine objects."""

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule(task_id, work())

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule_later(delay, task_id, work())

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.cancel(task_id)
            scheduler.schedule_later(delay, task_id, work())


class Functions(_Anysched):
    """Schedules coroutine functions: the coroutine is created when the task starts."""

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule(task_id, work)

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule_later(delay, task_id, work)

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.cancel(task_id)
            scheduler.schedule_later(delay, task_id, work)


class _Everything(Instrument):
    """Overrides every method and does nothing."""

    def task_scheduled(self, task: ScheduledTask[Any], /) -> None:
        pass

    def run_started(self, task: ScheduledTask[Any], run: StartedRun, /) -> None:
        pass

    def run_finished(self, task: ScheduledTask[Any], run: FinishedRun, /) -> None:
        pass

    def task_finished(self, task: ScheduledTask[Any], /) -> None:
        pass


class Instrumented(Coroutines):
    """With an instrument that does nothing."""

    def __init__(self) -> None:
        super().__init__([_Everything()])


class WithHistory(Coroutines):
    """With a `History`."""

    def __init__(self) -> None:
        super().__init__([History()])


class WithTelemetry(Coroutines):
    """With spans and metrics of OpenTelemetry, which its SDK records and drops."""

    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider

        from anysched.opentelemetry import MetricsInstrument, TracingInstrument

        tracer_provider = TracerProvider(shutdown_on_exit=False)
        meter_provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
        super().__init__(
            [
                TracingInstrument(tracer_provider=tracer_provider),
                MetricsInstrument(meter_provider=meter_provider),
            ]
        )
