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
        1 try a 1 keep
        1 acknowledged a 1 keep
        1 begin a 1 10 1 key
        1 begin a 1 10 2 other
        1 end a 1 10 2 other
        1 gone 10
        2 begin a 1 10 3 key
        1 try b 2 keep
        1 acknowledged b 2 keep
        1 try b 3 replace
        1 acknowledged b 3 replace
        1 begin b 2 11 1 key
        1 try c 4 keep
        1 acknowledged c 4 keep
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
