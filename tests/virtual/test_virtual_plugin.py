"""The pytest plugin, in fresh runs of pytest, with warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

# Both must be harmless when they are installed beside this plugin; pytest-asyncio warns unless its option is set.
OPTIONS = ("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function", "-p", "no:cacheprovider")


@pytest.fixture
def inner(pytester):
    def run(source, *options, **files):
        pytester.makepyfile(test_inner=source, **files)
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


def test_a_first_test_runs_on_both_backends(inner):
    result = inner(FIRST_TEST, "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_reminder[[]asyncio[]] PASSED*", "*test_reminder[[]trio[]] PASSED*"])


def test_the_example_in_the_docstring_is_this_test():
    from anysched import testing

    lines = [line.removeprefix("    ") for line in testing.__doc__.splitlines()]
    kept = [line.partition("  #")[0] for line in lines]
    assert FIRST_TEST.strip() in "\n".join(kept)


def test_the_second_example_in_the_docstring(inner):
    from anysched import testing

    lines = [line.removeprefix("    ") for line in testing.__doc__.splitlines()]
    second = lines.index("async def test_not_too_early(virtual_clock: VirtualClock) -> None:")
    end = next(number for number, line in enumerate(lines[second:], second) if line.startswith("What is not virtual"))
    head = FIRST_TEST.partition("async def")[0]
    inner(head + "from anyio import sleep_forever\n" + "\n".join(lines[second:end])).assert_outcomes(passed=2)


def test_nothing_happens_to_tests_that_do_not_opt_in(inner):
    inner(
        """
        import sys, time
        import anyio, pytest

        @pytest.mark.anyio
        async def test_real(anyio_backend):
            assert anyio_backend in ("asyncio", "trio")
            began = time.monotonic()
            await anyio.sleep(0.02)
            assert time.monotonic() - began > 0.015

        def test_nothing_is_imported():
            assert not [name for name in sys.modules if name.startswith("anysched._virtual")]
        """
    ).assert_outcomes(passed=3)


def test_the_plugin_can_be_imported_in_a_conftest_for_all_modules(inner):
    inner(
        """
        import anyio, pytest

        @pytest.mark.anyio
        async def test_virtual(virtual_clock):
            await anyio.sleep(86_400)
            assert virtual_clock.monotonic() == 86_400
        """,
        conftest="from anysched.testing import virtual_anyio_backend as anyio_backend",
    ).assert_outcomes(passed=2)


def test_a_backend_of_ones_own_with_another_start(inner):
    inner(
        """
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
    ).assert_outcomes(passed=4)


def test_a_clock_where_time_is_real_is_a_clear_error(inner):
    result = inner(
        """
        import pytest

        @pytest.mark.anyio
        async def test_real(virtual_clock):
            pass
        """
    )
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*from anysched.testing import virtual_anyio_backend as anyio_backend*"])


def test_time_begins_anew_with_each_test_but_not_within_a_fixture_of_the_module(inner):
    inner(
        """
        import anyio, pytest
        from anysched.testing import virtual_anyio_backend as anyio_backend

        pytestmark = pytest.mark.anyio

        @pytest.mark.parametrize("number", range(3))
        async def test_anew(virtual_clock, number):
            assert virtual_clock.monotonic() == 0
            await anyio.sleep(5)
        """,
        test_fixture="""
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
        """,
    ).assert_outcomes(passed=12)


def test_with_hypothesis(inner):
    """Hypothesis refuses fixtures of function scope: ask for the current clock."""
    inner(
        """
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
    ).assert_outcomes(passed=2)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_beside_pytest_asyncio_and_pytest_trio(inner, mode):
    pytest.importorskip("pytest_asyncio")
    pytest.importorskip("pytest_trio")
    result = inner(
        """
        import asyncio
        import pytest, trio

        @pytest.mark.trio
        async def test_trio(autojump_clock):
            await trio.sleep(60)
            assert trio.current_time() == 60
        """
        if mode == "strict"
        else "",
        "-v",
        "-o",
        f"asyncio_mode={mode}",
        test_asyncio="""
        import asyncio
        import pytest

        @pytest.mark.asyncio
        async def test_asyncio():
            await asyncio.sleep(0.001)
        """,
        test_virtual="""
        import anyio, pytest
        from anysched.testing import virtual_anyio_backend as anyio_backend

        @pytest.mark.anyio
        async def test_virtual(virtual_clock):
            await anyio.sleep(86_400)
            assert virtual_clock.monotonic() == 86_400
        """
        if mode == "strict"
        else "",
    )
    result.stdout.fnmatch_lines(["plugins: *"])
    result.assert_outcomes(passed=4 if mode == "strict" else 1)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_test_that_is_never_idle_fails_with_a_clear_error(inner, backend):
    result = inner(
        f"""
        import anyio, pytest
        from anysched.testing import VirtualClock

        @pytest.fixture
        def anyio_backend():
            return VirtualClock(busy_limit=1000).backend({backend!r})

        @pytest.mark.anyio
        async def test_spin(virtual_clock):
            while virtual_clock.monotonic() < 5:
                await anyio.sleep(0)

        @pytest.mark.anyio
        async def test_next(virtual_clock):
            await anyio.sleep(5)
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*NeverIdleError: virtual time cannot move*"])


def test_a_debug_mode_and_uvloop(inner):
    pytest.importorskip("uvloop")
    result = inner(
        """
        import asyncio
        import pytest
        from anysched.testing import VirtualClock

        @pytest.fixture(params=[{"debug": True}, {"use_uvloop": True}], ids=["debug", "uvloop"])
        def anyio_backend(request):
            return VirtualClock().backend("asyncio", **request.param)

        @pytest.mark.anyio
        async def test_it(virtual_clock):
            assert asyncio.get_running_loop().get_debug()
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ValueError: uvloop keeps its own time*"])


def python(code):
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=os.environ)


def test_the_clock_needs_neither_pytest_nor_trio():
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


def test_trio_is_not_imported_on_asyncio_and_the_plugin_imports_nothing_heavy():
    python(
        "import sys, pytest, anyio\n"
        "from anysched import pytest_plugin\n"
        "names = {'trio', 'asyncio', 'hypothesis', 'time_machine', 'anysched._virtual'}\n"
        "assert not names & set(sys.modules), names & set(sys.modules)\n"
        "from anysched.testing import VirtualClock\n"
        "VirtualClock().backend('asyncio')\n"
        "assert 'trio' not in sys.modules\n"
    )


def test_the_fixtures_of_the_testing_module():
    from anysched import pytest_plugin, testing

    assert testing.virtual_anyio_backend is pytest_plugin.virtual_anyio_backend
    assert testing.virtual_clock is pytest_plugin.virtual_clock
    assert all(hasattr(testing, name) for name in testing.__all__)
    with pytest.raises(AttributeError, match=r"'anysched\.testing' has no attribute 'nothing'"):
        _ = testing.nothing


def test_without_trio_the_backend_is_asyncio():
    python(
        "import sys, importlib.util\n"
        "find_spec = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'trio' else find_spec(name, *rest)\n"
        "from anysched import pytest_plugin\n"
        "marker = pytest_plugin.virtual_anyio_backend._fixture_function_marker\n"
        "assert marker.params == ('asyncio',), marker.params\n"
    )
