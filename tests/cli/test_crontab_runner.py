"""The lines of a crontab, run in virtual time with simulated commands."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from anysched import Scheduler
from anysched._cli.crontab import runner as runner_module
from anysched._cli.crontab.runner import Runner
from anysched._cli.crontab.syntax import CronLine, parse_crontab
from anysched._cli.reports.events import Event
from anysched._cli.subprocesses import CommandResult
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio

MINUTE = 60.0


class Stage:
    """A report that remembers, and commands that are played: ``"3 x"`` takes three minutes and prints ``x``."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.events: list[Event] = []
        self.notes: list[str] = []
        self.output: list[tuple[str, tuple[str, ...]]] = []
        self.starts: list[tuple[str, str]] = []
        self.calls: list[dict[str, Any]] = []

    def now(self) -> str:
        return self.clock.now().strftime("%d %H:%M")

    def show(self, event: Event) -> None:
        self.events.append(event)

    separates_streams = False

    def pass_on(self, event: Event) -> None:
        self.output.append((str(event.task_id), event.output))

    def note(self, text: str, level: str = "info") -> None:
        self.notes.append(text)

    async def play(
        self,
        command: tuple[str, ...],
        started: Callable[[int], None],
        ended: Callable[[CommandResult], None],
        *,
        printed: Callable[[tuple[str, ...], str], object],
        **others: object,
    ) -> None:
        self.calls.append({"command": command, **others})
        minutes, _, word = command[2].partition(" ")
        self.starts.append((self.now(), word))
        started(len(self.starts))
        state: Any = "cancelled"
        try:
            await anyio.sleep(float(minutes) * MINUTE)
            printed((word,), "stdout")
            state = "finished"
        finally:
            ended(CommandResult(state, "played", fields={"exit_status": 0}))

    def states(self, job: str) -> list[str]:
        return [event.state for event in self.events if event.task_id == job]

    def last(self, job: str) -> Event:
        return [event for event in self.events if event.task_id == job][-1]


def lines(text: str) -> tuple[CronLine, ...]:
    crontab = parse_crontab(text.encode(), UTC)
    assert crontab.problems == ()
    return crontab.lines


@pytest.fixture
def stage(virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> Stage:
    virtual_clock.autojump = False
    stage = Stage(virtual_clock)
    monkeypatch.setattr(runner_module, "run_command", stage.play)
    return stage


@asynccontextmanager
async def running(stage: Stage, text: str) -> AsyncIterator[Runner]:
    async with Scheduler("cli") as scheduler:
        runner = Runner(scheduler, stage)  # type: ignore[arg-type]
        runner.start(lines(text))
        yield runner
        if not scheduler.statistics().running:
            scheduler.cancel_all()


async def minutes(stage: Stage, count: float) -> None:
    await stage.clock.advance(count * MINUTE)


async def test_each_line_runs_when_it_is_due(stage: Stage) -> None:
    async with running(
        stage, "*/2 * * * * 0 even\n3 0 * * * 0 three\n@reboot 0 start\nCRON_TZ=Asia/Kolkata\n35 5 * * * 0 five"
    ):
        pending = {event.task_id: event.due for event in stage.events}
        start = datetime(2025, 1, 1, tzinfo=UTC)
        assert [pending[f"line-{number}"] for number in (1, 2, 3, 5)] == [
            start + timedelta(minutes=number) for number in (2, 3, 0, 5)
        ]
        await minutes(stage, 6)
    assert stage.starts == [
        ("01 00:00", "start"), ("01 00:02", "even"), ("01 00:03", "three"), ("01 00:04", "even"), ("01 00:05", "five"),
        ("01 00:06", "even"),
    ]  # fmt: skip
    assert stage.states("line-3") == ["pending", "running", "finished"]
    assert stage.last("line-3").next_due is None
    assert stage.last("line-1").next_due == start + timedelta(minutes=8)
    assert stage.last("line-2").next_due == start + timedelta(days=1, minutes=3)


async def test_a_line_that_still_runs_is_not_started_again_and_catches_up_once(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 25 slow"):
        await minutes(stage, 34)
        assert stage.last("line-1").state == "running"
        await minutes(stage, 1)  # at 20 and 30 it still ran
        assert [event.next_due for event in stage.events if event.state == "finished"] == [stage.clock.now()]
        await minutes(stage, 25 + 5)
        assert stage.last("line-1").state == "running"
    assert stage.starts == [("01 00:10", "slow"), ("01 00:35", "slow"), ("01 01:00", "slow")]


async def test_after_a_suspend_there_is_one_run_and_not_one_for_each_time(stage: Stage) -> None:
    async with running(stage, "* * * * * 0 x"):
        await minutes(stage, 1)
        stage.clock.suspend(3 * 3600 + 30)
        await minutes(stage, 1.5)
    assert stage.starts == [("01 00:01", "x"), ("01 03:01", "x"), ("01 03:02", "x"), ("01 03:03", "x")]


async def test_a_clock_that_is_set_back_repeats_nothing_and_the_next_run_is_told_right(stage: Stage) -> None:
    async with running(stage, "*/5 * * * * 1 x"):
        await minutes(stage, 5)
        stage.clock.step_wall(-600)
        await minutes(stage, 1)
        assert stage.last("line-1").next_due == datetime(2025, 1, 1, 0, 10, tzinfo=UTC)
        await minutes(stage, 14)
    assert stage.starts == [("01 00:05", "x"), ("01 00:10", "x")]


async def test_a_clock_that_was_ahead_for_a_while_silences_no_line(stage: Stage) -> None:
    async with running(stage, "*/5 * * * * 0 x"):
        await minutes(stage, 5)
        stage.clock.step_wall(365 * 86_400)
        await minutes(stage, 1)  # the run of 00:10 is overdue
        stage.clock.step_wall(-365 * 86_400)
        await minutes(stage, 10)
        assert stage.last("line-1").next_due == datetime(2025, 1, 1, 0, 20, tzinfo=UTC)
    assert stage.starts == [("01 00:05", "x"), ("01 00:05", "x"), ("01 00:15", "x")]


async def test_a_start_that_rounding_makes_a_little_early_has_served_its_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scheduler, "now", lambda _: stage.clock.now() - timedelta(microseconds=1))
    async with running(stage, "*/5 * * * * 0 x"):
        await minutes(stage, 5)
        assert stage.last("line-1").next_due == datetime(2025, 1, 1, 0, 10, tzinfo=UTC)


async def test_what_a_command_is_given(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("SHELL", "/bin/fish")
    text = "@reboot 0 a%in\nSHELL=/bin/bash\nHOME=/var\nLOGNAME=daemon\nA=1\n@reboot 0 b"
    async with running(stage, text):
        await stage.clock.settle()
    first, second = stage.calls
    assert (first["command"], first["stdin"]) == (("/bin/sh", "-c", "0 a"), b"in\n")
    assert first["environment"]["INHERITED"] == "yes"
    assert first["environment"]["SHELL"] == "/bin/sh"
    assert first["directory"] == first["environment"]["HOME"]
    assert "A" not in first["environment"]
    assert (second["command"], second["stdin"], second["directory"]) == (("/bin/bash", "-c", "0 b"), b"", "/var")
    assert second["environment"]["A"] == "1"
    assert second["environment"]["LOGNAME"] == first["environment"]["LOGNAME"] != "daemon"


async def test_output_is_passed_on_with_the_name_of_the_job(stage: Stage) -> None:
    async with running(stage, "# a\n@reboot 0 hello"):
        await stage.clock.settle()
    assert stage.output == [("line-2", ("hello",))]


async def test_what_machines_are_told(stage: Stage) -> None:
    async with running(stage, "0 * * * * 0 x%y"):
        await minutes(stage, 60)
    known: Mapping[str, object] = {"line": 1, "schedule": "0 * * * *", "command": "0 x"}
    assert [event.fields for event in stage.events] == [
        known, {**known, "pid": 1}, {**known, "pid": 1, "exit_status": 0},
    ]  # fmt: skip


async def test_the_process_id_is_told_as_long_as_there_is_a_process(stage: Stage) -> None:
    async with running(stage, "0 * * * * 0 x") as runner:
        await minutes(stage, 60)
        runner.reload(lines("\n0 * * * * 0 x"))
    assert stage.last("line-2").fields == {"line": 2, "schedule": "0 * * * *", "command": "0 x"}


async def test_a_line_that_is_never_due_is_told(stage: Stage) -> None:
    async with running(stage, "0 0 */31 * 1#2 0 x") as runner:
        assert stage.notes == ["line-1 is never due: 0 0 */31 * 1#2"]
        assert runner.reload(()) == "0 new, 0 unchanged, 1 removed"
    assert stage.events == []


# New lines


async def test_unchanged_lines_stay_as_they_are_wherever_they_stand(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 0 a\n*/10 * * * * 0 b\n*/10 * * * * 0 b\n@reboot 0 c") as runner:
        await minutes(stage, 5)
        stage.events.clear()
        said = runner.reload(lines("# new\n*/10 * * * * 0 b\n@reboot 0 c\n*/10 * * * * 0 b\n*/10 * * * * 0 a"))
        assert said == "0 new, 4 unchanged, 0 removed"
        assert [(event.task_id, event.state, event.detail) for event in stage.events] == [
            ("line-4", "pending", "line-3 until now"),
            ("line-5", "pending", "line-1 until now"),
        ]
        await minutes(stage, 5)
    assert sorted(stage.starts) == [("01 00:00", "c"), ("01 00:10", "a"), ("01 00:10", "b"), ("01 00:10", "b")]


async def test_lines_come_and_go_and_a_change_is_both(stage: Stage) -> None:
    async with running(stage, "2 * * * * 0 a\n2 * * * * 0 b") as runner:
        said = runner.reload(lines("3 * * * * 0 a\nX=1\n2 * * * * 0 b\n@reboot 0 c"))
        assert said == "3 new, 0 unchanged, 2 removed"
        assert stage.states("line-1") == ["pending", "cancelled", "pending"]
        assert [event.detail for event in stage.events if event.state == "cancelled"] == ["removed", "removed"]
        await minutes(stage, 5)
    # Lines that run at the start do not run now.
    assert stage.starts == [("01 00:02", "b"), ("01 00:03", "a")]


async def test_a_running_job_whose_line_has_gone_runs_to_its_end_and_not_again(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 25 old\n@reboot 30 once") as runner:
        await minutes(stage, 11)
        assert (
            runner.reload(lines("*/10 * * * * 1 new"))
            == "1 new, 0 unchanged, 2 removed (2 of them running, to its end)"
        )
        assert stage.last("old-line-1").detail == "line-1 until now, removed"
        assert stage.last("old-line-1").state == "running"
        await minutes(stage, 30)
        assert stage.last("old-line-1").state == stage.last("old-line-2").state == "finished"
        assert stage.last("old-line-1").next_due is None
        assert runner.reload(()) == "0 new, 0 unchanged, 1 removed"
    assert [start for start in stage.starts if start[1] != "new"] == [("01 00:00", "once"), ("01 00:10", "old")]


async def test_a_job_that_catches_up_ends_with_its_line_too(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 15 x") as runner:
        await minutes(stage, 26)  # at 10, and at 25 for the time of 20
        runner.reload(())
        await minutes(stage, 60)
    assert stage.starts == [("01 00:10", "x"), ("01 00:25", "x")]


async def test_a_line_that_is_there_again_while_it_runs_is_not_started_twice(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 25 x") as runner:
        await minutes(stage, 11)
        runner.reload(())
        assert runner.reload(()) == "0 new, 0 unchanged, 0 removed"
        assert runner.reload(lines("\n*/10 * * * * 25 x")) == "0 new, 1 unchanged, 0 removed"
        assert stage.last("line-2").state == "running"
        assert stage.last("line-2").detail == "old-line-1 until now"
        await minutes(stage, 29)
    assert stage.starts == [("01 00:10", "x"), ("01 00:35", "x")]


async def test_a_line_that_is_there_again_after_its_job_has_ended_is_new(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 5 x") as runner:
        await minutes(stage, 11)
        runner.reload(())
        await minutes(stage, 10)
        assert runner.reload(lines("*/10 * * * * 5 x")) == "1 new, 0 unchanged, 0 removed"
        await minutes(stage, 15)
    assert stage.starts == [("01 00:10", "x"), ("01 00:30", "x")]


async def test_a_changed_assignment_does_not_start_a_command_beside_itself(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 25 x") as runner:
        await minutes(stage, 11)
        assert (
            runner.reload(lines("A=1\n*/10 * * * * 25 x"))
            == "1 new, 0 unchanged, 1 removed (1 of them running, to its end)"
        )
        assert stage.last("line-2").detail == "after the end of old-line-1"
        assert stage.last("line-2").due == datetime(2025, 1, 1, 0, 20, tzinfo=UTC)
        await minutes(stage, 23)
        assert stage.starts == [("01 00:10", "x")]
        await minutes(stage, 26)
        assert stage.states("old-line-1") == ["running", "finished"]
    assert stage.starts == [("01 00:10", "x"), ("01 00:35", "x"), ("01 01:00", "x")]
    assert ["A" in call["environment"] for call in stage.calls] == [False, True, True]


async def test_however_often_the_file_is_read_again_a_command_waits_for_its_own_end(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 25 x") as runner:
        await minutes(stage, 11)
        runner.reload(lines("A=1\n*/10 * * * * 25 x"))
        runner.reload(lines("*/10 * * * * 25 x"))  # as at first; the first job will not run again
        assert [stage.last(name).state for name in ("old-line-1", "line-2", "line-1")] == [
            "running",
            "cancelled",
            "pending",
        ]
        runner.reload(lines("*/5 * * * * 25 x"))
        runner.reload(())
        runner.reload(lines("*/4 * * * * 25 x"))
        await minutes(stage, 25)
    assert stage.starts == [("01 00:10", "x"), ("01 00:35", "x")]


async def test_each_of_two_equal_lines_waits_for_one_of_those_before(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 25 x\n*/10 * * * * 25 x\n*/10 * * * * 25 y") as runner:
        await minutes(stage, 11)
        runner.reload(lines("A=1\n*/10 * * * * 25 x\n*/10 * * * * 25 x\n*/10 * * * * 25 x"))
        details = [event.detail for event in stage.events if event.state == "pending"][-3:]
        assert details == ["after the end of old-line-1", "after the end of old-line-2", ""]


async def test_a_changed_line_whose_command_runs_from_the_start_waits_for_it(stage: Stage) -> None:
    async with running(stage, "@reboot 15 x") as runner:
        await minutes(stage, 1)
        runner.reload(lines("*/10 * * * * 15 x"))
        await minutes(stage, 18)
    assert stage.starts == [("01 00:00", "x"), ("01 00:15", "x")]


async def test_a_second_signal_and_the_end_also_find_what_is_waited_for(stage: Stage) -> None:
    async with running(stage, "*/10 * * * * 60 x") as runner:
        await minutes(stage, 11)
        runner.reload(lines("A=1\n*/10 * * * * 60 x"))
        assert {job.name for job in runner.tasks.values()} == {"old-line-1", "line-2"}
        stage.clock.autojump = True
        await runner.close(signal.SIGTERM, MINUTE)
    assert stage.notes == ["SIGTERM: 1 pending dropped, 1 running may take 1 min more"]
    assert stage.states("old-line-1") == ["running", "cancelled", "unfinished"]


async def test_a_home_that_cannot_be_entered_is_told_and_the_command_runs_in_the_root(stage: Stage) -> None:
    async with running(
        stage, "HOME=/no/such/place\n@reboot 0 a\nHOME=/etc/passwd\n@reboot 0 b\nHOME=/tmp\n@reboot 0 c"
    ):
        await stage.clock.settle()
    assert [call["directory"] for call in stage.calls] == ["/", "/", "/tmp"]
    assert stage.notes == [
        "line-2: HOME cannot be entered: No such file or directory: /no/such/place; it runs in /",
        "line-4: HOME cannot be entered: Not a directory: /etc/passwd; it runs in /",
    ]


async def test_a_home_that_is_empty_is_told_and_the_command_runs_in_the_root(stage: Stage) -> None:
    async with running(stage, "HOME=\n@reboot 0 a"):
        await stage.clock.settle()
    assert [call["directory"] for call in stage.calls] == ["/"]
    assert stage.notes == ["line-2: HOME is empty; it runs in /"]


# The end


async def test_the_end_waits_for_what_runs_and_lists_what_it_stops(stage: Stage) -> None:
    async with running(
        stage, "@reboot 2 quick\n@reboot 60 slow\n* * * * * 60 again\n@daily 0 x\n@reboot 0 done"
    ) as runner:
        await minutes(stage, 1)
        stage.clock.autojump = True
        await runner.close(signal.SIGTERM, 5 * MINUTE)
    assert stage.notes == ["SIGTERM: 1 pending dropped, 3 running may take 5 min more"]
    assert stage.now() == "01 00:06"
    unfinished = [event for event in stage.events if event.state == "unfinished"]
    assert sorted((event.task_id, event.detail, event.command) for event in unfinished) == [
        ("line-2", "cancelled", "60 slow"), ("line-3", "cancelled", "60 again"),
    ]  # fmt: skip
    assert stage.last("line-1").state == "finished"
    assert all(event.next_due is None for event in stage.events if event.task_id != "line-5")
    assert runner.summary() == "done: 2 finished, 2 unfinished"


async def test_a_removed_job_is_listed_too_if_it_has_to_be_stopped(stage: Stage) -> None:
    async with running(stage, "@reboot 60 slow") as runner:
        await stage.clock.settle()
        runner.reload(())
        stage.clock.autojump = True
        await runner.close(signal.SIGINT, 0)
    assert stage.states("old-line-1") == ["running", "cancelled", "unfinished"]
    assert stage.notes == ["SIGINT: 1 running terminated"]
    assert runner.summary() == "done: 1 unfinished"


async def test_nothing_has_run(stage: Stage) -> None:
    async with running(stage, "@daily 0 x") as runner:
        await runner.close(signal.SIGINT, 0)
    assert runner.summary() == "done: nothing to do"
