"""A command as a subprocess, where it is cancelled at an awkward moment."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from anysched._cli.jobs import Ending, run_command


def test_cancelled_while_it_is_being_started_it_is_terminated(backend: str, gone: Callable[[int], bool]) -> None:
    started: list[int] = []
    ended: list[Ending] = []

    async def run() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run_command(("sleep", "60"), started.append, ended.append)
        assert scope.cancelled_caught

    anyio.run(run, backend=backend)
    assert [ending.state for ending in ended] == ["cancelled"]
    assert ended[0].detail.startswith("ended by SIGTERM after ")
    assert gone(started[0])


def test_a_command_is_terminated_when_nobody_can_be_told(backend: str, gone: Callable[[int], bool]) -> None:
    pids: list[int] = []
    ended: list[Ending] = []

    def started(pid: int) -> None:
        pids.append(pid)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        anyio.run(run_command, ("sleep", "60"), started, ended.append, backend=backend)
    assert [ending.state for ending in ended] == ["cancelled"]
    assert gone(pids[0])
