"""The owner among three processes is killed, with restarts of the server. ``nox -s kills`` does it 300 times, with cuts of the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kills_postgres import kill_owners
from postgres_server import reason_to_skip


@pytest.mark.slow
@pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))
def test_nothing_is_lost_when_the_owner_is_killed(tmp_path: Path) -> None:
    figures, takeovers = kill_owners(tmp_path, int(os.environ.get("KILLS", "30")), seed=1)
    print(figures, *takeovers, sep="\n")
    assert figures.lost == []
    assert figures.violations == []
    assert figures.acknowledged > 0
