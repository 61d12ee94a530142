"""The program of the page on restarts, killed and started again as the page says."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from documentation import BLOCKS


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_killed_it_still_reminds(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if block.path.name == "durable.md" and "app" in block.words]
    (tmp_path / "bot.py").write_text(block.code, "utf-8")
    command = [sys.executable, "-W", "error", "bot.py"]
    with subprocess.Popen([*command, "1", "the tea is ready"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as bot:
        assert bot.stdout is not None
        assert bot.stdout.readline() == "stored\n"
        bot.send_signal(signal.SIGKILL)
        printed = bot.stdout.read()  # nothing, unless the machine was so slow that it was due
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "Reminder: the tea is ready\n" in (again.stdout, printed)
    assert again.stderr == ""
