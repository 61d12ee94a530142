"""Real SIGKILLs: what was acknowledged is kept, and nothing runs twice at once. ``nox -s kills`` does it 300 times."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from kills import examine, kill_many


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_nothing_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    figures = kill_many(tmp_path, int(os.environ.get("KILLS", "30")), seed=1)
    print(figures)
    assert figures.lost == []
    assert figures.violations == []
    assert figures.acknowledged > 0


def test_the_examiner_finds_what_is_wrong() -> None:
    journal = """
        1 1 try a 1 keep
        1 2 acknowledged a 1 keep
        1 3 begin a 1 10 1 key
        1 4 begin a 1 10 2 other
        1 5 end a 1 10 2 other
        1 6 gone 10
        2 7 begin a 1 10 3 key
        1 8 try b 2 keep
        1 9 acknowledged b 2 keep
        1 10 try b 3 replace
        1 11 acknowledged b 3 replace
        1 12 begin b 2 11 1 key
        1 13 try c 4 keep
        1 14 acknowledged c 4 keep
    """
    figures = examine([line.strip() for line in journal.strip().splitlines()], 0)
    assert [violation.partition(":")[0] for violation in figures.violations] == [
        "twice at once",
        "another key, or no new attempt",
        "run after its end was stored",
        "another key, or no new attempt",
        "run after cancel or replace returned",
    ]
    assert figures.lost == ["b 3", "c 4"]
    assert figures.acknowledged == 4


@pytest.mark.parametrize("sign", ["end a 1 10 1 key", "cancelled a 1 10 1 key", "acknowledged b 2 keep", "killed"])
def test_the_examiner_finds_that_two_processes_run_one_id(sign: str) -> None:
    journal = ["1 1 begin a 1 10 1 key", "2 2 begin a 1 10 2 key"]
    dead = examine(journal, 0)  # the first process wrote nothing more: it may have died before
    assert dead.violations == []
    alive = examine([*journal, f"1 3 {sign}"], 0)
    assert alive.violations == [f"twice at once in two processes: {journal[1]} next to {journal[0]}"]
    killed = examine([journal[0], "1 1.5 killed", *journal[1:]], 0)
    assert killed.violations == []


def test_the_examiner_knows_that_another_process_cancels_what_is_starting() -> None:
    begin = ["1 1 try a 1 keep", "2 2 try a 1 cancel"]
    claim, cancelled, run = "1 3 claim 10", "2 4 acknowledged a 1 cancel", "1 5 begin a 1 10 1 key"
    assert examine([*begin, claim, cancelled, run], 0).violations == []
    for journal in ([cancelled, claim, run], [claim, f"1{cancelled[1:]}", run], [cancelled, run]):
        assert examine([*begin, *journal], 0).violations == [f"run after cancel or replace returned: {run}"]


def test_the_examiner_says_for_how_long_an_end_was_not_stored() -> None:
    journal = ["1 1 begin a 1 10 1 key", "1 2 end a 1 10 1 key", "1 2.5 open", "2 9 begin a 1 10 2 key"]
    figures = examine(journal, 0)
    assert figures.violations == []
    assert figures.unstored == 0.5
