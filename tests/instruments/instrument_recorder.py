"""An instrument that records its calls."""

from __future__ import annotations

from typing import Any

from anysched import ScheduledTask
from anysched.abc import FinishedRun, Instrument, StartedRun


class Recorder(Instrument):
    """Records the name of each call, the ID, and the current status of the task."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any, str]] = []
        self.starts: list[StartedRun] = []
        self.runs: list[FinishedRun] = []

    def _record(self, event: str, task: ScheduledTask[Any]) -> None:
        self.events.append((event, task.task_id, task.status.name.lower()))

    def task_scheduled(self, task: ScheduledTask[Any], /) -> None:
        self._record("scheduled", task)

    def task_kept(self, task: ScheduledTask[Any], /) -> None:
        self._record("kept", task)

    def task_rescheduled(self, task: ScheduledTask[Any], /) -> None:
        self._record("rescheduled", task)

    def task_paused(self, task: ScheduledTask[Any], /) -> None:
        self._record("paused", task)

    def task_resumed(self, task: ScheduledTask[Any], /) -> None:
        self._record("resumed", task)

    def run_started(self, task: ScheduledTask[Any], run: StartedRun, /) -> None:
        self._record("started", task)
        self.starts.append(run)

    def run_finished(self, task: ScheduledTask[Any], run: FinishedRun, /) -> None:
        self._record(f"run {run.status.name.lower()}", task)
        self.runs.append(run)

    def task_finished(self, task: ScheduledTask[Any], /) -> None:
        self._record("ended", task)
