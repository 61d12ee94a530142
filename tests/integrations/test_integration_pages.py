"""The programs of the pages on frameworks run: served over the loopback interface, or driven without a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import anyio
import httpx2
import pytest
import trio
from documentation import BLOCKS, Block, is_like, load_app, run_program, run_tests

from anysched import Scheduler
from anysched.testing import VirtualClock

OURS = [block for block in BLOCKS if "integrations" in block.words]
PROGRAMS = [block for block in OURS if block.is_program]
TESTS = [block for block in OURS if "test" in block.words]


@pytest.mark.parametrize(
    ("block", "backend"),
    [pytest.param(block, name, id=f"{block.name}-{name}") for block in PROGRAMS for name in block.backends],
)
def test_programs_print_what_the_page_says(block: Block, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = run_program(block, backend, monkeypatch)
    assert is_like(output, block.output), f"it printed\n{output}"


@pytest.mark.parametrize("block", TESTS, ids=lambda block: block.name)
def test_tests_pass(block: Block, tmp_path: Path) -> None:
    run_tests(block, tmp_path)


async def use_reminders(
    request: Callable[..., Awaitable[int]], printed: Callable[[], str], sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Set reminders and delete one, through the HTTP interface that the programs share."""
    assert await request("PUT", "/reminders/tea", {"delay": 3600, "text": "the tea is ready"}) == 202
    assert await request("PUT", "/reminders/cake", {"delay": 3600, "text": "the cake is ready"}) == 202
    assert await request("DELETE", "/reminders/cake") == 204
    assert await request("DELETE", "/reminders/cake") == 404
    assert await request("PUT", "/reminders/tea", {"delay": 0.001, "text": "the tea is ready now"}) == 202
    output = printed()
    while not output:
        await sleep(0.001)
        output = printed()
    assert output == "Reminder: the tea is ready now\n"
    assert await request("PUT", "/reminders/bread", {"delay": 3600, "text": "the bread is ready"}) == 202


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_fastapi(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    from fastapi.testclient import TestClient

    with TestClient(load_app("integrations/fastapi.md").app, backend=backend) as client:

        async def request(method: str, path: str, body: object = None) -> int:
            status: int = client.request(method, path, json=body).status_code
            return status

        async def main() -> None:
            await use_reminders(request, lambda: capsys.readouterr().out, anyio.sleep)

        anyio.run(main)
        assert list(client.get("/reminders").json()) == ["bread"]
        scheduler = client.app_state["scheduler"]
        assert isinstance(scheduler, Scheduler)
    assert capsys.readouterr().out.startswith("Not done: bread due 20")
    assert not scheduler.tasks


def test_aiohttp(capsys: pytest.CaptureFixture[str]) -> None:
    from aiohttp.test_utils import TestClient, TestServer

    module = load_app("integrations/aiohttp.md")

    async def main() -> None:
        client = TestClient(TestServer(module.make_app()))
        async with anyio.create_task_group() as tg:  # set up and torn down in different tasks
            tg.start_soon(client.start_server)

        async def request(method: str, path: str, body: object = None) -> int:
            async with client.request(method, path, json=body) as response:
                status: int = response.status
                return status

        await use_reminders(request, lambda: capsys.readouterr().out, anyio.sleep)
        await client.close()

    anyio.run(main)
    assert capsys.readouterr().out.startswith("Not done: bread due 20")


def test_quart_trio(capsys: pytest.CaptureFixture[str]) -> None:
    module = load_app("integrations/quart-trio.md")
    config = module.Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None

    async def main() -> None:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(partial(module.serve, module.app, config, shutdown_trigger=stop.wait))
            async with httpx2.AsyncClient(base_url=address, trust_env=False) as client:

                async def request(method: str, path: str, body: object = None) -> int:
                    status: int = (await client.request(method, path, json=body)).status_code
                    return status

                await use_reminders(request, lambda: capsys.readouterr().out, trio.sleep)
            stop.set()

    trio.run(main)
    assert capsys.readouterr().out.startswith("Not done: bread due 20")


@pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning")  # discord.py's
def test_discord(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import discord
    from discord.ext.commands import Context

    module = load_app("integrations/discord.md")
    replies: list[tuple[float, str]] = []

    async def send(_: object, text: str, **options: object) -> None:
        replies.append((anyio.current_time(), text))

    monkeypatch.setattr(Context, "send", send)

    def message(number: int, content: str) -> Any:
        message = Mock(spec=discord.Message, id=number, content=content, attachments=[])
        message.author = SimpleNamespace(bot=False, id=1)
        return message

    async def main() -> None:
        async with Scheduler("bot") as scheduler, module.Bot(scheduler) as bot:
            bot._connection.user = SimpleNamespace(id=0)  # whom it would be logged in as
            await bot.setup_hook()  # `start` would call it, and connect
            await bot.process_commands(message(1, "!remind 30 the tea is ready"))
            await bot.process_commands(message(2, "!remind 30 the cake is ready"))
            await bot.process_commands(message(3, "!remind 1000 the bread is ready"))
            await bot.process_commands(message(4, "!forget 2"))
            await bot.process_commands(message(5, "!forget 2"))
            await anyio.sleep(3600)
            (child,) = [cog.scheduler for cog in bot.cogs.values()]
            assert list(child.tasks) == [3]
        assert not child.tasks

    backend, options = VirtualClock().backend("asyncio", debug=True)
    anyio.run(main, backend=backend, backend_options=options)
    assert replies == [
        (0, "OK, this is reminder 1."),
        (0, "OK, this is reminder 2."),
        (0, "OK, this is reminder 3."),
        (0, "OK, I forgot it."),
        (0, "No reminder has that number."),
        (1800, "the tea is ready"),
    ]
    assert capsys.readouterr().out.startswith("Not sent: 3 due 2025-01-01 16:40:00")


def test_trio_mock_clock() -> None:
    """The page on trio says that trio's own test clock affects tasks that are scheduled with a delay."""
    from trio.testing import MockClock

    ran = []

    async def work() -> None:
        ran.append(trio.current_time())

    async def main() -> None:
        async with Scheduler("x") as scheduler:
            scheduler.schedule_later(3600, "id", work)
            await scheduler.join()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert ran == [3600]
