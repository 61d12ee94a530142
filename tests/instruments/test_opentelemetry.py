"""Spans and metrics, as the in-memory exporters of the SDK receive them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer

from anysched import Scheduler
from anysched.opentelemetry import MetricsInstrument, TracingInstrument
from support import Gate, errors, fail, nothing, until

pytestmark = pytest.mark.anyio

HOUR = 3600


class Spans:
    """Spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = self.provider.get_tracer("test")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def spans() -> Spans:
    return Spans()


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# Spans


async def test_a_run_has_a_span_that_is_current_in_it_and_linked_to_where_it_was_scheduled(
    scheduler: Scheduler, spans: Spans
) -> None:
    scheduler.add_instrument(TracingInstrument(tracer_provider=spans.provider))

    async def work() -> None:
        await anyio.sleep(0)
        with spans.tracer.start_as_current_span("inner"):
            await anyio.sleep(0)

    with spans.tracer.start_as_current_span("request") as request:
        task = scheduler.schedule("an ID", work)
    await task
    (span,), (inner,) = spans.named("run test"), spans.named("inner")
    assert span.context is not None
    assert span.parent is None
    assert span.context.trace_id != request.get_span_context().trace_id
    assert [link.context for link in span.links] == [request.get_span_context()]
    assert inner.parent == span.context
    assert span.status.status_code is StatusCode.UNSET
    attributes = attributes_of(span)
    assert 0 <= attributes.pop("anysched.run.lateness") < 60
    assert attributes == {
        "anysched.scheduler": "test",
        "anysched.run.number": 1,
        "anysched.run.status": "finished",
    }
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_its_child_on_request(scheduler: Scheduler, spans: Spans) -> None:
    scheduler.add_instrument(TracingInstrument(child=True, tracer_provider=spans.provider))
    with spans.tracer.start_as_current_span("request") as request:
        task = scheduler.schedule("id", nothing)
    await task
    (span,) = spans.named("run test")
    assert span.parent == request.get_span_context()
    assert span.links == ()


async def test_without_a_span_where_it_was_scheduled_there_is_no_link(scheduler: Scheduler, spans: Spans) -> None:
    scheduler.add_instrument(TracingInstrument(tracer_provider=spans.provider))
    await scheduler.schedule("id", nothing)
    (span,) = spans.named("run test")
    assert (span.parent, span.links) == (None, ())


async def test_baggage_is_kept(scheduler: Scheduler, spans: Spans) -> None:
    scheduler.add_instrument(TracingInstrument(tracer_provider=spans.provider))
    seen = []

    async def work() -> None:
        seen.append(baggage.get_baggage("tenant"))

    token = context_api.attach(baggage.set_baggage("tenant", "acme"))
    task = scheduler.schedule("id", work)
    context_api.detach(token)
    await task
    assert seen == ["acme"]


async def test_ids_are_recorded_only_if_asked_for(scheduler: Scheduler, spans: Spans) -> None:
    instrument = TracingInstrument(record_id=True, tracer_provider=spans.provider)
    scheduler.add_instrument(instrument)
    await scheduler.schedule(("user", 5), nothing)
    (span,) = spans.named("run test")
    assert attributes_of(span)["anysched.task.id"] == "('user', 5)"


async def test_a_failure_is_recorded(scheduler: Scheduler, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    scheduler.add_instrument(TracingInstrument(tracer_provider=spans.provider))
    await scheduler.schedule("id", fail, ValueError("broken")).wait()
    (span,) = spans.named("run test")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "broken")
    assert attributes_of(span)["error.type"] == "ValueError"
    assert attributes_of(span)["anysched.run.status"] == "failed"
    (event,) = span.events
    assert event.name == "exception"
    assert (event.attributes or {})["exception.message"] == "broken"
    assert len(errors(caplog)) == 1


async def test_an_exception_that_cannot_be_printed(
    scheduler: Scheduler, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    scheduler.add_instrument(TracingInstrument(tracer_provider=spans.provider))
    await scheduler.schedule("id", fail, UnprintableError()).wait()
    (span,) = spans.named("run test")
    assert span.status.status_code is StatusCode.ERROR
    assert "UnprintableError object at" in str(span.status.description)
    assert str(attributes_of(span)["error.type"]).endswith(".UnprintableError")
    assert len(errors(caplog)) == 1  # the instrument has not been removed


async def test_a_cancellation_is_not_an_error(scheduler: Scheduler, spans: Spans) -> None:
    scheduler.add_instrument(TracingInstrument(tracer_provider=spans.provider))
    gate = Gate()
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    scheduler.cancel("id")
    await task.wait()
    (span,) = spans.named("run test")
    assert span.status.status_code is StatusCode.UNSET
    assert attributes_of(span)["anysched.run.status"] == "cancelled"
    assert span.events == ()


async def test_the_log_record_of_a_failure_has_the_span(
    scheduler: Scheduler, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.add_instrument(TracingInstrument(tracer_provider=spans.provider))
    seen = []

    def add_span(_: object) -> bool:
        seen.append(trace.get_current_span().get_span_context())
        return True

    logging.getLogger("anysched.test").addFilter(add_span)
    try:
        await scheduler.schedule("id", fail, ValueError()).wait()
    finally:
        logging.getLogger("anysched.test").removeFilter(add_span)
    (span,) = spans.named("run test")
    assert seen[-1] == span.context
    assert len(errors(caplog)) == 1


async def test_each_run_of_a_recurring_task_has_a_span_with_a_link(scheduler: Scheduler, spans: Spans) -> None:
    scheduler.add_instrument(TracingInstrument(tracer_provider=spans.provider))
    with spans.tracer.start_as_current_span("request") as request:
        scheduler.schedule_every(0.001, "id", nothing)
    await until_runs(scheduler, 3)
    scheduler.cancel("id")
    first, second, third = spans.named("run test")[:3]
    assert len({span.context.trace_id for span in (first, second, third) if span.context}) == 3
    for span in (first, second, third):
        assert [link.context for link in span.links] == [request.get_span_context()]
    assert [attributes_of(span)["anysched.run.number"] for span in (first, second, third)] == [1, 2, 3]


async def until_runs(scheduler: Scheduler, count: int) -> None:
    with anyio.fail_after(10):
        while scheduler.statistics().finished < count:
            await anyio.sleep(0.001)


@pytest.fixture
def instrumentation(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = pytest.importorskip("opentelemetry.instrumentation.asyncio")
    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE", "child")
    instrumentor = package.AsyncioInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider)
    yield
    instrumentor.uninstrument()


@pytest.mark.usefixtures("instrumentation")
async def test_beside_the_instrumentation_of_asyncio(scheduler: Scheduler, spans: Spans, anyio_backend: Any) -> None:
    if anyio_backend[0] == "trio":
        pytest.skip("for asyncio")
    scheduler.add_instrument(TracingInstrument(tracer_provider=spans.provider))

    async def child() -> None:
        await asyncio.sleep(0)

    async def work() -> None:
        await asyncio.create_task(child())

    await scheduler.schedule("id", work)
    (span,), (inner,) = spans.named("run test"), spans.named("asyncio coro-child")
    assert inner.parent == span.context


# Metrics


class Metrics:
    """The current values of the metrics."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def points(self, name: str) -> dict[tuple[str, ...], Any]:
        """Return the data points of a metric, by the values of their attributes."""
        data = self._reader.get_metrics_data()
        return {
            tuple(str(value) for _, value in sorted((point.attributes or {}).items(), reverse=True)): point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    def value(self, name: str, scheduler: str = "test") -> Any:
        """Return the value of a metric that has one for each scheduler."""
        return self.points(name)[scheduler,].value


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


async def test_runs_by_outcome_with_duration_and_lateness(
    scheduler: Scheduler, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.add_instrument(MetricsInstrument(meter_provider=metrics.provider))
    child = scheduler.child("child")
    await scheduler.schedule("one", nothing)
    await scheduler.schedule("two", nothing)
    await scheduler.schedule("three", fail, ValueError()).wait()
    await child.schedule("one", nothing)
    runs = metrics.points("anysched.runs")
    assert {key: point.value for key, point in runs.items()} == {
        ("test", "finished"): 2,
        ("test", "failed"): 1,
        ("test.child", "finished"): 1,
    }
    duration = metrics.points("anysched.run.duration")
    assert duration.keys() == runs.keys()
    assert duration["test", "finished"].count == 2
    assert duration["test", "finished"].explicit_bounds[0] == 0.005
    lateness = metrics.points("anysched.run.lateness")
    assert {key: point.count for key, point in lateness.items()} == {("test",): 3, ("test.child",): 1}
    assert len(errors(caplog)) == 1


async def test_pending_and_running(scheduler: Scheduler, metrics: Metrics) -> None:
    early = scheduler.schedule_later(HOUR, "early", nothing)
    scheduler.add_instrument(MetricsInstrument(meter_provider=metrics.provider))
    early.cancel()  # it was not counted
    scheduler.schedule_later(HOUR, "late", nothing)
    gate = Gate()
    scheduler.schedule_every(HOUR, "recurring", gate, first=0)
    assert metrics.value("anysched.tasks.pending") == 2
    await gate.started.wait()
    assert metrics.value("anysched.tasks.pending") == 1
    assert metrics.value("anysched.tasks.running") == 1
    gate.open.set()
    await until(lambda: scheduler.statistics().running == 0)
    assert metrics.value("anysched.tasks.pending") == 2
    assert metrics.value("anysched.tasks.running") == 0
    scheduler.cancel_all()
    assert metrics.value("anysched.tasks.pending") == 0


async def test_a_run_of_a_task_that_was_scheduled_before_is_counted_while_it_runs(
    scheduler: Scheduler, metrics: Metrics
) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    scheduler.add_instrument(MetricsInstrument(meter_provider=metrics.provider))
    await gate.started.wait()
    assert metrics.value("anysched.tasks.running") == 1
    gate.open.set()
    await task
    assert metrics.value("anysched.tasks.running") == 0
    assert metrics.points("anysched.tasks.pending") == {}


def test_the_sdk_is_not_needed() -> None:
    program = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.sdk"):
            raise ImportError(name)

sys.meta_path.insert(0, Finder())
import anyio
from anysched import Scheduler
from anysched.opentelemetry import MetricsInstrument, TracingInstrument

async def main():
    async with Scheduler("test", instruments=[TracingInstrument(), MetricsInstrument()]) as scheduler:
        await scheduler.schedule("id", anyio.sleep, 0)

anyio.run(main)
print("done")
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("done\n", "")
