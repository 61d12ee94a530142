"""The tables of ``docs/coming-from/pydis_core.md``: generated from the observed behaviour of the two schedulers.

``python tests/migration/migration_page.py`` writes them into the page; this requires `pydis-core`. With the name of a
subject (``pydis_core``, ``asyncio``, ``trio``) it prints the observations of that one as JSON.
"""

from __future__ import annotations

import gc
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).parents[1]))

from migration_behaviours import BEHAVIOURS, FAULTS, Trial

import anysched
from anysched.testing import VirtualClock
from support import settle

PAGE = Path(__file__).parents[2] / "docs" / "coming-from" / "pydis_core.md"
SUBJECTS = ("pydis_core", "asyncio", "trio")
LOGGERS = ("pydis_core", "anysched")
TABLES = ("repaired", "differences", "same")


class LogTrial(logging.Handler):
    """A trial that is also the handler of its log records."""

    def __init__(
        self, backend: str, new: Callable[[str], Any], create_task: Callable[..., Any], *, moved: bool
    ) -> None:
        super().__init__()
        self.backend = backend
        self.moved = moved
        self.new = new
        self.create_task = create_task
        self.scheduler: Any = None
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the records of the schedulers."""
        if record.name.startswith(LOGGERS):
            self._records.append(record)

    def logged(self, level: int = 0) -> str:
        """Return the logged messages, without the addresses of tasks. Each error must have a traceback."""
        texts = [
            f"{record.levelname}: {re.sub(r' [0-9]{9,}', ' <address>', record.getMessage())}"
            for record in self._records
            if record.levelno >= level
        ]
        assert all(record.exc_info for record in self._records if record.levelno == logging.ERROR)
        return "; ".join(texts)


def observe(subject: str) -> list[str]:
    """Try all behaviours on one of the schedulers; return the observations."""
    return [try_one(subject, behaviour) for behaviour in BEHAVIOURS]


def try_one(subject: str, behaviour: Callable[[Trial], Awaitable[str]]) -> str:
    """Try one behaviour in its own run, in virtual time; return the observation and whether a coroutine leaked."""
    if subject == "pydis_core":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of discord.py, on import
            from pydis_core.utils import scheduling

        trial = LogTrial("asyncio", scheduling.Scheduler, scheduling.create_task, moved=False)
    else:
        trial = LogTrial(subject, anysched.Scheduler, anysched.create_task, moved=True)

    async def run() -> str:
        async with AsyncExitStack() as stack:
            stack.enter_context(clock.patch_datetime())
            trial.scheduler = trial.new("x")
            if subject == "pydis_core":
                stack.push_async_callback(settle)
                stack.callback(trial.scheduler.cancel_all)
            else:
                await stack.enter_async_context(trial.scheduler)
            return await behaviour(trial)

    root = logging.getLogger()
    level = root.level
    root.addHandler(trial)
    root.setLevel(logging.DEBUG)
    clock = VirtualClock(datetime(2025, 1, 1, tzinfo=UTC))
    backend, options = clock.backend("trio" if trial.backend == "trio" else "asyncio")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            seen = anyio.run(run, backend=backend, backend_options=options)
            gc.collect()
    finally:
        root.setLevel(level)
        root.removeHandler(trial)
    leaked = [warning for warning in caught if "was never awaited" in str(warning.message)]
    return f"{seen}; warns that a coroutine was never awaited" if leaked else seen


@cache
def observe_apart(subject: str) -> list[str]:
    """Do the same in a separate process.

    `pydis_core` changes the logging of the process on import. Also, leaked coroutines are garbage, which is collected
    sooner in a small process.
    """
    command = [sys.executable, __file__, subject]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    seen: list[str] = json.loads(result.stdout)
    return seen


def titles() -> list[str]:
    """Return the names of the rows."""
    return [(behaviour.__doc__ or "").strip() for behaviour in BEHAVIOURS]


def both(on_asyncio: str, on_trio: str) -> str:
    """Combine the observations on the two backends."""
    return on_asyncio if on_asyncio == on_trio else f"{on_asyncio} (on trio: {on_trio})"


def tables(seed: list[str], on_asyncio: list[str], on_trio: list[str]) -> dict[str, str]:
    """Return the tables as Markdown: the bugs that are fixed, the other differences, and the common behaviour."""
    differences = ["| | `pydis_core` | `anysched` |", "|---|---|---|"]
    repaired = [*differences]
    same = ["| | both |", "|---|---|"]
    for behaviour, title, old, asyncio_, trio_ in zip(BEHAVIOURS, titles(), seed, on_asyncio, on_trio, strict=True):
        new = both(asyncio_, trio_)
        if behaviour in FAULTS:
            repaired.append(f"| {title} | {old} | {new} |")
        elif old == new:
            same.append(f"| {title} | {old} |")
        else:
            differences.append(f"| {title} | {old} | {new} |")
    return dict(zip(TABLES, ("\n".join(rows) for rows in (repaired, differences, same)), strict=True))


def marked(name: str) -> re.Pattern[str]:
    """Return a pattern that finds a table in the page, between two comments."""
    return re.compile(rf"(?<=<!-- {name}: begin -->\n\n).*?(?=\n\n<!-- {name}: end -->)", re.DOTALL)


def shown() -> dict[str, str]:
    """Return the tables that the page shows."""
    page = PAGE.read_text(encoding="utf-8")
    return {name: marked(name).findall(page)[0] for name in TABLES}


def with_table(page: str, name: str, table: str) -> str:
    """Return the page with a table inserted."""
    return marked(name).sub(lambda _: table, page)


def main() -> None:
    """Print observations, or write the page."""
    if sys.argv[1:]:
        print(json.dumps(observe(sys.argv[1])))
        return
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables(*map(observe_apart, SUBJECTS)).items():
        page = with_table(page, name, table)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
