"""A program like a chat bot: components that are loaded and unloaded, made before the event loop runs, with Arrow's times."""

import asyncio
import logging
import unittest
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import arrow
import pytest

from anysched import ScheduledTask, Scheduler
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from support import errors, records, settle

pytestmark = pytest.mark.anyio

HOUR = 3600.0


class Server:
    """The bot's server: each call takes a second."""

    def __init__(self) -> None:
        self.seconds = 1.0
        self.texts: list[str] = []
        self.channels: set[str] = set()

    async def call(self, text: str) -> None:
        await anyio.sleep(self.seconds)
        self.texts.append(text)


class Cog:
    """A component, created in a plain function, possibly before the event loop runs."""

    name = "cog"

    def __init__(self, bot: "Bot") -> None:
        self.bot = bot
        self.server = bot.server
        self.scheduler = bot.scheduler.child(self.name)

    async def load(self) -> None:
        """Called when the bot runs."""

    async def unload(self) -> None:
        await self.scheduler.close()


class Reminders(Cog):
    """Reminders, which are stored with their Arrow times, and scheduled when the component is loaded."""

    name = "reminders"

    async def load(self) -> None:
        for number, (due, text) in self.bot.stored.items():
            self.scheduler.schedule_at(due, number, self.remind(number, text))

    async def unload(self) -> None:
        for task in await self.scheduler.close(grace=5):
            assert task.task_id in self.bot.stored

    def add(self, number: int, due: arrow.Arrow, text: str) -> None:
        self.bot.stored[number] = due, text
        self.scheduler.schedule_at(due, number, self.remind(number, text), on_conflict="replace")

    def move(self, number: int, due: arrow.Arrow) -> bool:
        self.bot.stored[number] = due, self.bot.stored[number][1]
        return self.scheduler.reschedule_at(due, number)

    def delete(self, number: int) -> bool:
        self.bot.stored.pop(number, None)
        return self.scheduler.cancel(number)

    async def remind(self, number: int, text: str) -> None:
        await self.server.call(text)
        del self.bot.stored[number]
        self.scheduler.cancel(number)  # as these programs do, to be sure; the rest still runs
        await self.server.call(f"log of {text}")


class Silence(Cog):
    """Channels that are silenced for a while."""

    name = "silence"

    def silence(self, channel: str, seconds: float) -> None:
        if channel in self.scheduler:
            self.scheduler.cancel(channel)
        self.scheduler.schedule_later(seconds, channel, self.unsilence, channel)

    async def unsilence(self, channel: str) -> None:
        await self.server.call(f"{channel} is open")
        await self.server.call(f"{channel} is told")

    async def unload(self) -> None:
        self.scheduler.cancel_all(running="leave")


class Refresher(Cog):
    """Refreshes something every hour, starting now."""

    name = "refresher"

    async def load(self) -> None:
        self.task: ScheduledTask[Any] = self.scheduler.schedule_every(HOUR, "refresh", self.refresh, first=0)

    async def refresh(self) -> None:
        await self.server.call("refresh")
        if self.bot.broken:
            raise ConnectionError


class Channels(Cog):
    """Temporary channels, which are deleted at the end by a call that takes some time."""

    name = "channels"

    def open(self, channel: str) -> None:
        self.server.channels.add(channel)
        self.scheduler.schedule(channel, self.keep, channel)

    async def keep(self, channel: str) -> None:
        try:
            await anyio.sleep(HOUR)
        finally:
            with anyio.move_on_after(5, shield=True):
                await self.server.call(f"delete {channel}")
                self.server.channels.discard(channel)


COGS: dict[str, type[Any]] = {cog.name: cog for cog in (Reminders, Silence, Refresher, Channels)}


class Bot:
    """Made before the event loop runs, with all components."""

    def __init__(self) -> None:
        self.server = Server()
        self.scheduler = Scheduler("bot")
        self.stored: dict[Any, tuple[arrow.Arrow, str]] = {}
        self.broken = False
        self.cogs: dict[str, Any] = {name: cog(self) for name, cog in COGS.items()}

    async def setup(self) -> None:
        for cog in self.cogs.values():
            await cog.load()

    async def unload(self, name: str) -> None:
        await self.cogs.pop(name).unload()

    async def reload(self, name: str) -> None:
        await self.unload(name)
        self.cogs[name] = COGS[name](self)
        await self.cogs[name].load()

    async def close(self) -> list[ScheduledTask[Any]]:
        return await self.scheduler.close(grace=5)


@asynccontextmanager
async def running(bot: Bot) -> AsyncIterator[None]:
    """Host the scheduler of a bot as its event loop allows, and close it at the end."""
    async with anyio.create_task_group() as nursery:
        try:
            bot.scheduler.start()
        except RuntimeError:  # on trio
            await nursery.start(bot.scheduler.run)
        await bot.setup()
        yield
        await bot.close()
    assert bot.scheduler.state == "closed"


@pytest.fixture
def bot() -> Bot:
    """A bot, created without a running event loop."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    return Bot()


@pytest.fixture
async def began(virtual_clock: VirtualClock) -> arrow.Arrow:
    return arrow.get(virtual_clock.now())


async def test_stored_reminders_are_sent_once_and_logged(
    virtual_clock: VirtualClock, bot: Bot, began: arrow.Arrow
) -> None:
    bot.stored[1] = began.shift(days=-1), "overdue"
    bot.stored[2] = began.shift(hours=1).to("Europe/Paris"), "tea"
    async with running(bot):
        await virtual_clock.advance(3)
        assert sorted(bot.server.texts) == ["log of overdue", "overdue", "refresh"]
        assert list(bot.stored) == [2]
        assert bot.cogs["reminders"].scheduler.tasks[2].due == began.shift(hours=1)
        await virtual_clock.advance(HOUR)
        assert sorted(bot.server.texts[3:]) == ["log of tea", "refresh", "tea"]
        assert not bot.stored
        assert not bot.cogs["reminders"].scheduler.tasks


async def test_what_is_being_sent_is_finished_on_a_reload_and_the_rest_is_scheduled_again(
    virtual_clock: VirtualClock, bot: Bot, began: arrow.Arrow, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(bot):
        reminders = bot.cogs["reminders"]
        for number in range(1, 4):
            reminders.add(number, began.shift(minutes=10 * number), f"text {number}")
        assert reminders.move(3, began.shift(hours=3))
        await virtual_clock.advance(600.5)
        await bot.reload("reminders")
        assert bot.server.texts == ["refresh", "text 1", "log of text 1"]
        assert reminders.scheduler.state == "closed"
        with pytest.raises(RuntimeError, match="it cannot be entered again"):
            reminders.add(4, began, "too late")
        del bot.stored[4]
        reloaded = bot.cogs["reminders"].scheduler
        assert {task.task_id: task.due for task in reloaded.tasks.values()} == {
            2: began.shift(minutes=20),
            3: began.shift(hours=3),
        }
        assert bot.cogs["reminders"].delete(2)
        assert not bot.cogs["reminders"].delete(2)
        await virtual_clock.advance(3 * HOUR)
        assert bot.server.texts.count("text 3") == bot.server.texts.count("log of text 3") == 1
        assert "text 2" not in bot.server.texts
    assert [record.levelname for record in records(caplog, logging.INFO)] == ["WARNING"]


async def test_what_runs_is_left_when_a_component_goes(virtual_clock: VirtualClock, bot: Bot) -> None:
    async with running(bot):
        silence = bot.cogs["silence"]
        silence.silence("#python", 60)
        silence.silence("#general", HOUR)
        silence.silence("#general", 30)
        silence.silence("#off-topic", HOUR)
        await virtual_clock.advance(60.5)
        await bot.reload("silence")
        bot.cogs["silence"].silence("#python", 10)
        await virtual_clock.advance(2 * HOUR)
        texts = [text for text in bot.server.texts if text.startswith("#")]
        assert texts == ["#general is open", "#general is told", *["#python is open", "#python is told"] * 2]


async def test_a_refresher_goes_on_when_a_refresh_fails_and_is_single_after_reloads(
    virtual_clock: VirtualClock, bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(bot):
        await virtual_clock.advance(HOUR / 2)
        bot.broken = True
        await virtual_clock.advance(2 * HOUR)
        assert bot.server.texts == ["refresh"] * 3
        assert len(errors(caplog)) == 2
        bot.broken = False
        for _ in range(3):
            await bot.reload("refresher")
        await virtual_clock.advance(HOUR / 2)
        del bot.server.texts[:]
        await virtual_clock.advance(10 * HOUR)
        assert bot.server.texts == ["refresh"] * 10


async def test_one_grace_for_everything_at_the_end(virtual_clock: VirtualClock, bot: Bot, began: arrow.Arrow) -> None:
    async with running(bot):
        await virtual_clock.advance(2)
        bot.cogs["channels"].open("#temporary")
        bot.cogs["reminders"].add(1, began.shift(days=1), "tomorrow")
        bot.cogs["silence"].silence("#python", 8)
        await virtual_clock.advance(8.5)
        ended = anyio.current_time()
        unfinished = {task.name: task for task in await bot.close()}
        assert anyio.current_time() - ended == 6  # the grace, and the call that deletes the channel
        assert set(unfinished) == {"bot.channels_#temporary", "bot.reminders_1", "bot.refresher_refresh"}
        assert unfinished["bot.reminders_1"].due == bot.stored[1][0]
        assert not bot.server.channels
        assert bot.server.texts[-3:] == ["#python is open", "#python is told", "delete #temporary"]


async def test_nothing_is_left_of_a_bot(virtual_clock: VirtualClock, bot: Bot, began: arrow.Arrow) -> None:
    tasks = anyio.get_running_tasks()
    async with running(bot):
        for name in COGS:
            await bot.reload(name)
        bot.cogs["channels"].open("#temporary")
        bot.cogs["reminders"].add(1, began, "now")
        await settle()
    await settle()
    assert anyio.get_running_tasks() == tasks


class BotCase(unittest.IsolatedAsyncioTestCase):
    """How such a program is tested with unittest: set up and torn down by methods."""

    __test__ = False  # it is run by a test below

    def setUp(self) -> None:
        self.bot = Bot()
        self.bot.server.seconds = 0
        self.bot.stored[1] = arrow.utcnow().shift(days=1), "tomorrow"

    async def asyncSetUp(self) -> None:
        self.bot.scheduler.start()
        await self.bot.setup()
        self.addAsyncCleanup(self.check_closed)

    async def asyncTearDown(self) -> None:
        await self.bot.scheduler.close()

    async def check_closed(self) -> None:
        assert self.bot.scheduler.state == "closed"
        assert len(asyncio.all_tasks()) == 1

    async def test_a_reminder_is_scheduled(self) -> None:
        assert 1 in self.bot.cogs["reminders"].scheduler
        assert self.bot.cogs["reminders"].scheduler.tasks[1].due == self.bot.stored[1][0].datetime

    async def test_a_reminder_is_deleted(self) -> None:
        assert self.bot.cogs["reminders"].delete(1)
        assert 1 not in self.bot.cogs["reminders"].scheduler

    async def test_a_component_is_reloaded(self) -> None:
        await self.bot.reload("reminders")
        assert 1 in self.bot.cogs["reminders"].scheduler

    async def test_that_fails(self) -> None:
        self.bot.cogs["channels"].open("#temporary")
        await settle()
        self.fail("on purpose")


def test_the_bot_with_unittest(caplog: pytest.LogCaptureFixture) -> None:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(BotCase).run(result)
    assert (result.testsRun, len(result.failures), result.errors) == (4, 1, [])
    assert "on purpose" in result.failures[0][1]
    assert not errors(caplog)
