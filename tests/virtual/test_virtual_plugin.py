"""The pytest plugin, in fresh runs of pytest, with warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

import anysched.testing

pytest_plugins = ["pytester"]

# pytest-asyncio and pytest-trio are installed, and must work as usual together with this plugin. pytest-asyncio warns unless
# its option is set.
Inner = Callable[..., pytest.RunResult]

OPTIONS = ("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function", "-p", "no:cacheprovider", "-v")


@pytest.fixture
def inner(pytester: pytest.Pytester) -> Inner:
    """Run pytest in a separate process on modules, given by name; return its result."""

    def run(*options: str, **modules: str) -> pytest.RunResult:
        pytester.makepyfile(**modules)
        return pytester.runpytest_subprocess(*OPTIONS, *options)

    return run


FIRST_TEST = """
from datetime import UTC, datetime, timedelta

import pytest
from anysched import Scheduler
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio


async def test_reminder(virtual_clock: VirtualClock) -> None:
    sent = []

    async def send() -> None:
        sent.append(virtual_clock.now())

    async with Scheduler("reminders") as scheduler:
        scheduler.schedule_later(timedelta(days=30), "reminder", send)
        await scheduler.join()

    assert sent == [datetime(2025, 1, 31, tzinfo=UTC)]
"""


# Nothing happens to tests that do not opt in.
REAL = """
import time
import anyio, pytest

@pytest.mark.anyio
async def test_real(anyio_backend):
    assert anyio_backend in ("asyncio", "trio")
    began = time.monotonic()
    await anyio.sleep(0.02)
    assert time.monotonic() - began > 0.015
"""

# All modules of a directory opt in.
CONFTEST = "from anysched.testing import virtual_anyio_backend as anyio_backend"
IN_DIRECTORY = """
import anyio, pytest

@pytest.mark.anyio
async def test_virtual(virtual_clock):
    await anyio.sleep(86_400)
    assert virtual_clock.monotonic() == 86_400
"""

# A custom backend with its own start time. Autojump is reset after each test.
OWN_BACKEND = """
from datetime import UTC, datetime
import anyio, pytest
from anysched.testing import VirtualClock

@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return VirtualClock(datetime(2024, 2, 28, tzinfo=UTC), autojump=False).backend(request.param)

@pytest.mark.anyio
async def test_leap_year(virtual_clock):
    assert not virtual_clock.autojump
    await virtual_clock.advance(86_400)
    assert virtual_clock.now() == datetime(2024, 2, 29, tzinfo=UTC)
    virtual_clock.autojump = True

@pytest.mark.anyio
async def test_autojump_is_reset(virtual_clock):
    assert not virtual_clock.autojump
"""

# Time starts again with each test ...
ANEW = """
import anyio, pytest
from anysched.testing import virtual_anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

@pytest.mark.parametrize("number", range(3))
async def test_anew(virtual_clock, number):
    assert virtual_clock.monotonic() == 0
    await anyio.sleep(5)
"""

# ... but continues while a fixture of the module keeps the event loop running.
GOES_ON = """
import anyio, pytest
from anysched import Scheduler
from anysched.testing import virtual_anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module")
async def scheduler(anyio_backend):
    async with Scheduler("x") as scheduler:
        yield scheduler

@pytest.mark.parametrize("number", range(3))
async def test_goes_on(scheduler, virtual_clock, number):
    assert virtual_clock.monotonic() == number * 60
    await scheduler.schedule_later(60, "x", anyio.sleep, 0)
"""

# Hypothesis refuses fixtures of function scope: ask for the current clock.
HYPOTHESIS = """
import anyio, pytest
from anysched import Scheduler
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend
from hypothesis import given, settings, strategies as st

@pytest.mark.anyio
@settings(max_examples=20, database=None)
@given(delays=st.lists(st.integers(1, 10_000_000), max_size=5))
async def test_delays(delays):
    clock = VirtualClock.current()
    assert clock.monotonic() == 0
    started = []

    async def note():
        started.append(clock.monotonic())

    async with Scheduler("x") as scheduler:
        for number, delay in enumerate(delays):
            scheduler.schedule_later(delay, number, note)
        await scheduler.join()
    assert started == sorted(delays)
"""

WITH_PYTEST_ASYNCIO = """
import asyncio
import pytest

@pytest.mark.asyncio
async def test_asyncio():
    await asyncio.sleep(0.001)
"""

WITH_PYTEST_TRIO = """
import asyncio
import pytest, trio

@pytest.mark.trio
async def test_trio(autojump_clock):
    await trio.sleep(60)
    assert trio.current_time() == 60
"""


def docstring() -> list[str]:
    lines = str(anysched.testing.__doc__).splitlines()
    return [line.removeprefix("    ").partition("  #")[0] for line in lines]


def second_test() -> str:
    lines = docstring()
    begin = lines.index("async def test_not_too_early(virtual_clock: VirtualClock) -> None:")
    end = next(number for number, line in enumerate(lines[begin:], begin) if line.startswith("These are not virtual"))
    head = FIRST_TEST.partition("async def")[0]
    return head + "from anyio import sleep_forever\n" + "\n".join(lines[begin:end])


def test_the_first_test_is_the_example_in_the_docstring() -> None:
    assert FIRST_TEST.strip() in "\n".join(docstring())


@pytest.mark.slow
def test_on_both_backends_with_hypothesis_beside_pytest_asyncio_and_pytest_trio(
    inner: Inner, pytester: pytest.Pytester
) -> None:
    pytest.importorskip("pytest_asyncio")
    pytest.importorskip("pytest_trio")
    pytester.mkpydir("directory").joinpath("conftest.py").write_text(CONFTEST)
    pytester.path.joinpath("directory", "test_in_directory.py").write_text(IN_DIRECTORY)
    result = inner(
        test_first=FIRST_TEST,
        test_second=second_test(),
        test_real=REAL,
        test_own_backend=OWN_BACKEND,
        test_anew=ANEW,
        test_goes_on=GOES_ON,
        test_hypothesis=HYPOTHESIS,
        test_with_asyncio=WITH_PYTEST_ASYNCIO,
        test_with_trio=WITH_PYTEST_TRIO,
    )
    passed = Counter(line.partition(".py")[0] for line in result.outlines if " PASSED" in line)
    assert passed == {
        "test_first": 2,
        "test_second": 2,
        "test_real": 2,
        "directory/test_in_directory": 2,
        "test_own_backend": 4,
        "test_anew": 6,
        "test_goes_on": 6,
        "test_hypothesis": 2,
        "test_with_asyncio": 1,
        "test_with_trio": 1,
    }
    assert result.ret == 0
    result.stdout.fnmatch_lines_random(
        ["test_first.py::test_reminder[[]asyncio[]] PASSED*", "test_first.py::test_reminder[[]trio[]] PASSED*"]
    )


@pytest.mark.slow
def test_in_the_auto_modes_of_anyio_and_pytest_asyncio(inner: Inner) -> None:
    """pytest-asyncio in auto mode runs all async tests, unless they request anyio's backend."""
    pytest.importorskip("pytest_asyncio")
    virtual = FIRST_TEST.replace("pytestmark = pytest.mark.anyio", "")
    inner("-o", "anyio_mode=auto", test_first=virtual).assert_outcomes(passed=2)


WRONG = {
    # A clock where time is real.
    "test_real": """
import pytest

@pytest.mark.anyio
async def test_real(virtual_clock):
    pass
""",
    # A test that is never idle fails, and the next one runs.
    "test_spin": """
import anyio, pytest
from anysched.testing import VirtualClock

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return VirtualClock(busy_limit=1000).backend(request.param)

@pytest.mark.anyio
async def test_spin(virtual_clock):
    while virtual_clock.monotonic() < 5:
        await anyio.sleep(0)

@pytest.mark.anyio
async def test_next(virtual_clock):
    await anyio.sleep(5)
""",
    # The same applies to a test that can never end, even if a fixture keeps the event loop.
    "test_deadlock": """
import anyio, pytest
from anysched import Scheduler
from anysched.testing import VirtualClock, virtual_anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module")
async def scheduler(anyio_backend):
    async with Scheduler("x") as scheduler:
        yield scheduler

async def test_hang(scheduler, virtual_clock):
    scheduler.schedule("id", anyio.sleep_forever)
    await scheduler.join()

async def test_next(scheduler, virtual_clock):
    scheduler.cancel("id")
    await anyio.sleep(5)
    await scheduler.join()
""",
    "test_uvloop": """
import asyncio
import pytest
from anysched.testing import VirtualClock

@pytest.fixture(params=[{"debug": True}, {"use_uvloop": True}], ids=["debug", "uvloop"])
def anyio_backend(request):
    return VirtualClock().backend("asyncio", **request.param)

@pytest.mark.anyio
async def test_it(virtual_clock):
    assert asyncio.get_running_loop().get_debug()
""",
}


@pytest.mark.slow
def test_what_is_wrong_is_a_clear_error(inner: Inner) -> None:
    result = inner(**WRONG)
    result.assert_outcomes(passed=5, failed=4, errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "*RuntimeError: *from anysched.testing import virtual_anyio_backend as anyio_backend*",
            "test_spin.py::test_spin[[]asyncio[]] FAILED*",
            "test_spin.py::test_spin[[]trio[]] FAILED*",
            "test_spin.py::test_next[[]asyncio[]] PASSED*",
            "test_spin.py::test_next[[]trio[]] PASSED*",
            "*NeverIdleError: virtual time cannot move*",
            "test_deadlock.py::test_hang[[]asyncio[]] FAILED*",
            "test_deadlock.py::test_hang[[]trio[]] FAILED*",
            "test_deadlock.py::test_next[[]asyncio[]] PASSED*",
            "test_deadlock.py::test_next[[]trio[]] PASSED*",
            "*DeadlockError: deadlock: every task is blocked*test_deadlock.py:* in test_hang*",
            "*ValueError: uvloop keeps its own time*",
        ]
    )


OTHERS = """
import anyio, pytest
from anysched.testing import virtual_anyio_backend as anyio_backend
from hypothesis import Phase, given, settings, strategies as st

once = settings(database=None, phases=[Phase.generate], max_examples=1)

@pytest.mark.MARK
async def test_function(virtual_clock):
    await anyio.sleep(0.001)

@pytest.mark.MARK
async def test_that_asks_for_the_backend(anyio_backend):
    await anyio.sleep(0.001)

@pytest.mark.MARK
class TestClass:
    async def test_method(self, virtual_clock):
        await anyio.sleep(0.001)

@pytest.mark.MARK
@once
@given(number=st.integers())
async def test_hypothesis(anyio_backend, number):
    await anyio.sleep(0.001)
"""

# Sync tests run as ever, and so do tests in real time.
BESIDE = """
import anyio, pytest
from anysched.testing import VirtualClock, virtual_anyio_backend

@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_sync(name):
    clock = VirtualClock()
    backend, options = clock.backend(name)
    anyio.run(anyio.sleep, 60, backend=backend, backend_options=options)
    assert clock.monotonic() == 60

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.mark.MARK
async def test_real(anyio_backend):
    await anyio.sleep(0.001)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "mark", "plugin", "strict"),
    [
        ((), "asyncio", "pytest-asyncio", "asyncio_mode = strict"),
        (("-o", "asyncio_mode=auto"), "anyio", "pytest-asyncio", "asyncio_mode = strict"),
        ((), "trio", "pytest-trio", "trio_mode = false"),
        (("-o", "trio_mode=true"), "anyio", "pytest-trio", "trio_mode = false"),
    ],
)
def test_a_test_in_virtual_time_that_another_plugin_runs_is_refused(
    inner: Inner, options: tuple[str, ...], mark: str, plugin: str, strict: str
) -> None:
    """It would run in real time, and pass."""
    pytest.importorskip("pytest_asyncio")
    pytest.importorskip("pytest_trio")
    real = BESIDE.replace("MARK", "asyncio" if "asyncio" in plugin else "trio")
    result = inner(*options, test_others=OTHERS.replace("MARK", mark), test_beside=real)
    result.assert_outcomes(failed=8, passed=4)
    for name in ("test_function", "test_that_asks_for_the_backend", "test_method", "test_hypothesis"):
        for backend in ("asyncio", "trio"):
            result.stdout.fnmatch_lines(
                f"{name}[[]{backend}[]] requests virtual time, but {plugin} runs it in real time. Mark it with "
                f"pytest.mark.anyio (*), and use the strict mode of {plugin}: {strict}"
            )


@pytest.mark.slow
def test_tests_in_real_time_of_other_plugins_fail_as_ever(inner: Inner) -> None:
    """If nothing is virtual, the modules of virtual time are not even imported."""
    pytest.importorskip("pytest_asyncio")
    real = WITH_PYTEST_ASYNCIO + "    import sys\n    assert 'anysched._virtual' in sys.modules, 'not imported'\n"
    result = inner(test_asyncio=real)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("*AssertionError: not imported*")


SEEDED = """
import anyio, pytest
from anysched.testing import VirtualClock

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return VirtualClock(seed=12345).backend(request.param)

async def order():
    order = []

    async def member(number):
        order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(member, number)
    return order

@pytest.mark.anyio
async def test_that_fails(anyio_backend):
    assert await order() == []

@pytest.mark.anyio
async def test_that_passes(anyio_backend):
    assert sorted(await order()) == [0, 1, 2, 3, 4]

@pytest.mark.anyio
async def test_in_setup(anyio_backend, broken):
    pass

@pytest.fixture
def broken(anyio_backend):
    raise ValueError
"""


@pytest.mark.slow
def test_the_seed_is_in_the_report_of_a_test_that_fails(inner: Inner) -> None:
    result = inner(test_seeded=SEEDED, test_wrong=SEEDED.replace("seed=12345", ""))
    result.assert_outcomes(passed=4, failed=4, errors=4)
    lines = [line for line in result.outlines if "VirtualClock(seed=" in line and "return" not in line]
    assert lines == ["Ready tasks were shuffled. VirtualClock(seed=12345) repeats their order."] * 4


def python(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=os.environ)


def test_the_clock_needs_neither_pytest_nor_trio() -> None:
    python(
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['trio'] = None\n"
        "import anyio\n"
        "from anysched.testing import VirtualClock\n"
        "clock = VirtualClock()\n"
        "name, options = clock.backend('asyncio')\n"
        "anyio.run(anyio.sleep, 60, backend=name, backend_options=options)\n"
        "assert clock.monotonic() == 60\n"
    )


def test_trio_is_not_imported_on_asyncio_and_the_plugin_imports_nothing_heavy() -> None:
    python(
        "import sys, pytest, anyio\n"
        "from anysched import pytest_plugin\n"
        "names = {'trio', 'asyncio', 'hypothesis', 'time_machine', 'anysched._virtual'}\n"
        "assert not names & set(sys.modules), names & set(sys.modules)\n"
        "from anysched.testing import VirtualClock\n"
        "VirtualClock().backend('asyncio')\n"
        "assert 'trio' not in sys.modules\n"
    )


def test_the_fixtures_of_the_testing_module() -> None:
    from anysched import pytest_plugin, testing

    assert testing.virtual_anyio_backend is pytest_plugin.virtual_anyio_backend
    assert testing.virtual_clock is pytest_plugin.virtual_clock
    assert all(hasattr(testing, name) for name in testing.__all__)
    with pytest.raises(AttributeError, match=r"'anysched\.testing' has no attribute 'nothing'"):
        _ = testing.nothing


def test_without_trio_the_backend_is_asyncio() -> None:
    python(
        "import sys, importlib.util\n"
        "find_spec = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'trio' else find_spec(name, *rest)\n"
        "from anysched import pytest_plugin\n"
        "fixture = pytest_plugin.virtual_anyio_backend\n"
        # The second is the name in older pytests.
        "marker = getattr(fixture, '_fixture_function_marker', None) or fixture._pytestfixturefunction\n"
        "assert marker.params == ('asyncio',), marker.params\n"
    )
