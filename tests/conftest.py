"""The matrix of event loops, and common fixtures."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from anysched import Scheduler
from anysched._core import dispatcher as dispatcher_module
from support import EVENT_LOOPS, group_starter

if sys.platform == "win32":
    collect_ignore = ["cli"]  # the command line needs POSIX
else:
    # The tests, and the programs that they start, must not inherit that signals are ignored: `nohup` ignores the first,
    # and a shell ignores the others in what it runs in the background.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

# With it, missing flushes in a program would go unnoticed.
os.environ.pop("PYTHONUNBUFFERED", None)

SIMULATED = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--starter",
        choices=["native", "group"],
        default="native",
        help="start tasks natively, as a rule, or all of them in anyio's own way",
    )
    parser.addoption("--all-zones", action="store_true", help="compare the times of cron in all time zones")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a PostgreSQL server, so that they can be left out."""
    for item in items:
        needs = {"postgres", "schema", "database"} & set(getattr(item, "fixturenames", ()))
        if needs or "postgres" in item.nodeid.lower():
            item.add_marker("postgres")


@pytest.fixture(autouse=True, scope="session")
def starter(request: pytest.FixtureRequest) -> Iterator[str]:
    """How tasks are started; every guarantee holds both ways."""
    way: str = request.config.getoption("--starter")
    with pytest.MonkeyPatch.context() as patch:
        if way == "group":
            patch.setattr(dispatcher_module, "starter_for", group_starter)
        yield way


@pytest.fixture
async def scheduler(anyio_backend: Any) -> AsyncIterator[Scheduler]:
    async with Scheduler("test") as scheduler:
        yield scheduler


@pytest.fixture(params=["every", "each"])
def way(request: pytest.FixtureRequest) -> str:
    """Either way to schedule a recurring task; see `recurrence.recur`."""
    way: str = request.param
    return way


@pytest.fixture(autouse=True, scope="module")
def nothing_left_unawaited() -> Iterator[None]:
    """A coroutine in a reference cycle is only reported as never awaited when it is collected."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def simulated(request: pytest.FixtureRequest) -> Counter[str]:
    """The totals of the simulation, which are reported at the end of the run: virtual seconds and task starts."""
    return request.config.stash.setdefault(SIMULATED, Counter())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report the totals of the simulation from a process of pytest-xdist."""
    if hasattr(session.config, "workeroutput"):
        simulated: Counter[str] = session.config.stash.get(SIMULATED, Counter[str]())
        session.config.workeroutput["simulated"] = dict(simulated)
        # The measurements would be lost if the process did not end by itself in time.
        coverage: Any = sys.modules.get("coverage")
        measured = coverage and coverage.Coverage.current()
        if measured:
            measured.save()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the totals of the simulation in such a process."""
    node.config.stash.setdefault(SIMULATED, Counter()).update(getattr(node, "workeroutput", {}).get("simulated", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    total = config.stash.get(SIMULATED, None)
    if total:
        terminalreporter.write_line(
            f"simulation: {total['seconds']} seconds of virtual time ({total['seconds'] / 86_400 / 365.25:.1f} years), "
            f"{total['starts']} task starts"
        )
