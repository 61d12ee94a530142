"""Spans and metrics of runs, for OpenTelemetry. Requires the extra ``opentelemetry``.

Both classes are instruments; use one or both::

    async with Scheduler("jobs", instruments=[TracingInstrument(), MetricsInstrument()]) as scheduler:
        ...

Only the API package of OpenTelemetry is required. Without an SDK nothing is recorded.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, final

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import INVALID_SPAN, Link, Span, Status, StatusCode, TracerProvider

from . import ScheduledTask
from .abc import FinishedRun, Instrument, StartedRun

__all__ = ["MetricsInstrument", "TracingInstrument"]

_NAME = "anysched"

# In seconds: the boundaries that the conventions recommend for durations, and further ones up to an hour.
_BOUNDARIES = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600]


@final
class TracingInstrument(Instrument):
    """Creates a span for each run, which is the current span inside the run.

    The span is named ``run <scheduler>``. It starts a new trace, with a link to the span that was current when
    the task was scheduled, since a task may run hours after the request that scheduled it.

    A failure is recorded according to the semantic conventions: an event with the exception, the attribute
    ``error.type`` and the status ``ERROR``. A cancellation is not an error.

    The spans have the attributes ``anysched.scheduler``, ``anysched.run.number``, ``anysched.run.lateness`` (in
    seconds) and ``anysched.run.status`` (``finished``, ``failed`` or ``cancelled``).

    Args:
        child: Whether the span is a child of the span that was current when the task was scheduled, instead of being
            linked to it.
        record_id: Whether spans have the attribute ``anysched.task.id``. IDs may be personal data.
        tracer_provider: The provider to use, instead of the global one.
    """

    def __init__(
        self, *, child: bool = False, record_id: bool = False, tracer_provider: TracerProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        self._child = child
        self._record_id = record_id
        self._spans: dict[ScheduledTask[Any], Span] = {}

    def run_started(self, task: ScheduledTask[Any], run: StartedRun, /) -> None:
        """Start a span, and make it the current one."""
        scheduler = task.scheduler_name
        attributes: dict[str, str | int | float] = {
            "anysched.scheduler": scheduler,
            "anysched.run.number": task.run_count,
            "anysched.run.lateness": run.lateness,
        }
        if self._record_id:
            attributes["anysched.task.id"] = _text(task.task_id)
        # The run has a copy of the context of the scheduling call, including its span.
        parent = trace.get_current_span()
        links = [Link(parent.get_span_context())] if parent.get_span_context().is_valid and not self._child else []
        # Only the span is replaced; baggage is kept.
        context = None if self._child else trace.set_span_in_context(INVALID_SPAN)
        span = self._tracer.start_span(f"run {scheduler}", context, attributes=attributes, links=links)
        self._spans[task] = span
        # It is not detached: the context ends with the run, and the log record of a failure must have the span.
        context_api.attach(trace.set_span_in_context(span))

    def run_finished(self, task: ScheduledTask[Any], run: FinishedRun, /) -> None:
        """End the span."""
        span = self._spans.pop(task)
        span.set_attribute("anysched.run.status", run.status.value)
        failure = run.failure
        if failure is not None:
            error = type(failure)
            span.set_attribute("error.type", f"{error.__module__}.{error.__qualname__}".removeprefix("builtins."))
            span.set_status(Status(StatusCode.ERROR, _text(failure)))
            with suppress(Exception):  # formatting an exception may raise another one
                span.record_exception(failure)
        span.end()


@final
class MetricsInstrument(Instrument):
    """Counts and measures runs.

    ================================ =============== ========= ==================================================
    metric                           kind            unit      attributes
    ================================ =============== ========= ==================================================
    ``anysched.runs``                counter         {run}     ``anysched.scheduler``, ``anysched.run.status``
    ``anysched.run.duration``        histogram       s         ``anysched.scheduler``, ``anysched.run.status``
    ``anysched.run.lateness``        histogram       s         ``anysched.scheduler``
    ``anysched.tasks.pending``       up-down counter {task}    ``anysched.scheduler``
    ``anysched.tasks.running``       up-down counter {task}    ``anysched.scheduler``
    ================================ =============== ========= ==================================================

    IDs are not recorded. Tasks that were scheduled before the instrument was added are not counted as pending.

    Args:
        meter_provider: The provider to use, instead of the global one.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None) -> None:
        meter = get_meter(_NAME, meter_provider=meter_provider)
        self._runs = meter.create_counter("anysched.runs", "{run}", "Runs that have ended")
        self._duration = meter.create_histogram(
            "anysched.run.duration",
            "s",
            "Duration of runs",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self._lateness = meter.create_histogram(
            "anysched.run.lateness",
            "s",
            "Time between due time and start",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self._pending = meter.create_up_down_counter("anysched.tasks.pending", "{task}", "Pending tasks")
        self._running = meter.create_up_down_counter("anysched.tasks.running", "{task}", "Running tasks")
        # The tasks that are counted as pending or running, so that others are not subtracted.
        self._tasks: set[ScheduledTask[Any]] = set()

    def task_scheduled(self, task: ScheduledTask[Any], /) -> None:
        """Count a pending task."""
        self._tasks.add(task)
        self._pending.add(1, _attributes(task))

    def run_started(self, task: ScheduledTask[Any], run: StartedRun, /) -> None:
        """Record the lateness; the task is running."""
        attributes = _attributes(task)
        if task in self._tasks:
            self._pending.add(-1, attributes)
        self._running.add(1, attributes)
        self._lateness.record(max(run.lateness, 0), attributes)

    def run_finished(self, task: ScheduledTask[Any], run: FinishedRun, /) -> None:
        """Record the run; the task is pending again, unless it ends."""
        attributes = _attributes(task)
        self._running.add(-1, attributes)
        if task in self._tasks:
            self._pending.add(1, attributes)
        attributes = {**attributes, "anysched.run.status": run.status.value}
        self._runs.add(1, attributes)
        self._duration.record(run.seconds, attributes)

    def task_finished(self, task: ScheduledTask[Any], /) -> None:
        """Stop counting the task."""
        if task in self._tasks:
            self._tasks.remove(task)
            self._pending.add(-1, _attributes(task))


def _attributes(task: ScheduledTask[Any]) -> dict[str, str]:
    return {"anysched.scheduler": task.scheduler_name}


def _text(value: object) -> str:
    """Return a value as text, even if its `str` raises an exception."""
    try:
        return str(value)
    except Exception:
        return object.__repr__(value)
