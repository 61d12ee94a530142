"""The pages on processes, Dask and Celery: their promises, with real workers that are killed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from spreading import Spreading, start_celery, start_celery_worker, started, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="as on Linux")]

REDIS = shutil.which("redis-server")
needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed")
needs_celery = pytest.mark.skipif(
    REDIS is None or find_spec("celery") is None, reason="there is no redis-server (see .ci/get-servers), or no Celery"
)
ENGINES: dict[str, Any] = {
    "process-pool-asyncio": (),
    "process-pool-trio": (),
    "dask-asyncio": needs_dask,
    "celery-asyncio": needs_celery,
    "celery-trio": needs_celery,
}
POOLS = ["process-pool-asyncio", "process-pool-trio"]
CLUSTERS = ["dask-asyncio", "celery-asyncio", "celery-trio"]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param.rpartition("-")[2]
    return backend


@pytest.fixture
def spreading(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Spreading]:
    yield from started(request.param.rpartition("-")[0], tmp_path, REDIS)


def on(engines: Iterable[str]) -> pytest.MarkDecorator:
    pairs = [pytest.param(engine, engine, id=engine, marks=ENGINES[engine]) for engine in engines]
    return pytest.mark.parametrize(("spreading", "backend"), pairs, indirect=True)


@on(ENGINES)
def test_results_and_failures_come_back_and_cancel_reaches_the_work(spreading: Spreading, backend: str) -> None:
    driver = spreading.start_driver(backend)
    spreading.finish("good")
    driver.ask("schedule good good")
    driver.expect("result good good done")
    driver.ask("schedule bad bad")
    driver.expect("failed bad ZeroDivisionError")

    driver.ask("schedule id long")
    process = spreading.wait_for("begin", "long")
    driver.ask("schedule id unwanted")  # the ID is held: "keep"
    driver.ask("cancel id")
    spreading.finish("next")
    driver.ask("schedule id next")
    driver.expect("result next next done")
    words = [entry[:2] for entry in spreading.journal()]
    assert ["begin", "unwanted"] not in words
    if spreading.name == "process-pool":
        assert not Path(f"/proc/{process}").exists()
    else:  # the next one has begun after the end of the one that was cancelled
        assert words.index(["stopped", "long"]) < words.index(["begin", "next"])
    driver.end()


@on(ENGINES)
def test_the_work_of_a_process_that_is_killed_is_done_by_another(spreading: Spreading, backend: str) -> None:
    driver = spreading.start_driver(backend)
    driver.ask("schedule id work")
    process = spreading.wait_for("begin", "work")
    os.kill(process, signal.SIGKILL)
    assert spreading.wait_for("begin", "work", 2) != process
    spreading.finish("work")
    driver.expect("result work work done")
    assert [entry[0] for entry in spreading.journal()] == ["begin", "begin", "end"]
    driver.end()


@on(["dask-asyncio"])
def test_dask_calls_the_function_of_a_killed_worker_on_another(spreading: Spreading, backend: str) -> None:
    kill_a_worker(spreading, backend)


@pytest.mark.parametrize("backend", ["asyncio"])
@needs_celery
def test_celery_hands_the_work_of_a_killed_worker_out_again(tmp_path: Path, backend: str) -> None:
    assert REDIS is not None
    with ExitStack() as stack:
        spreading = Spreading("celery", tmp_path, stack)
        spreading.replace(
            '"visibility_timeout": LIMIT + 60', '"visibility_timeout": 1'
        )  # the work does not take that long before the worker is killed
        start_celery(spreading, REDIS)
        kill_a_worker(spreading, backend)


def kill_a_worker(spreading: Spreading, backend: str) -> None:
    driver = spreading.start_driver(backend)
    driver.ask("schedule id work")
    group = os.getpgid(spreading.wait_for("begin", "work"))
    (worker,) = [worker for worker in spreading.workers if worker.process.pid == group]
    worker.kill()
    if spreading.name == "celery":
        time.sleep(
            2
        )  # after a second, its message is handed out again by the next worker that starts, or after some time
        start_celery_worker(spreading, 2)
    assert os.getpgid(spreading.wait_for("begin", "work", 2)) != group
    spreading.finish("work")
    driver.expect("result work work done")
    driver.end()


@pytest.mark.parametrize("ending", ["closed", "killed"])
@on(CLUSTERS)
def test_the_work_goes_on_when_the_scheduler_ends_and_the_next_attempt_has_its_result(
    spreading: Spreading, backend: str, ending: str
) -> None:
    driver = spreading.start_driver(backend)
    driver.ask("schedule id work")
    spreading.wait_for("begin", "work")
    if ending == "closed":
        driver.end()
    else:
        driver.kill()
    driver = spreading.start_driver(backend)
    driver.ask("schedule id unwanted")  # the ID is held
    spreading.finish("work")
    driver.expect("result work work done")
    assert [entry[:2] for entry in spreading.journal()] == [["begin", "work"], ["end", "work"]]
    driver.end()


@pytest.mark.parametrize("ending", ["closed", "killed"])
@on(POOLS)
def test_the_processes_of_a_pool_end_with_it_before_the_next_attempt(
    spreading: Spreading, backend: str, ending: str
) -> None:
    driver = spreading.start_driver(backend)
    driver.ask("schedule id work")
    process = spreading.wait_for("begin", "work")
    if ending == "closed":
        driver.end()
    else:
        os.kill(driver.process.pid, signal.SIGKILL)  # not its group
        wait_until(lambda: not Path(f"/proc/{process}").exists())
        driver.kill()
    driver = spreading.start_driver(backend)
    spreading.wait_for("begin", "work", 2)
    spreading.finish("work")
    driver.expect("result work work done")
    assert [entry[0] for entry in spreading.journal()] == ["begin", "begin", "end"]
    driver.end()


@on(["process-pool-asyncio", "dask-asyncio", "celery-asyncio"])
def test_the_program_of_the_page(spreading: Spreading, backend: str) -> None:
    address = [spreading.environment["SPREADING_ADDRESS"]] if spreading.name == "dask" else []
    program = spreading.start("films.py", *address, "cat", "dog")
    lines = sorted(program.lines.get(timeout=90) for _ in range(2))
    assert [line.split(" by ")[0] for line in lines] == ["cat: rendered", "dog: rendered"]
    program.end()
