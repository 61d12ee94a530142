"""The membership of one process in a shared store: it stands by, becomes the owner, loses the ownership, and gets news."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar, final

import anyio
from anyio import to_thread, wait_readable

from .errors import OwnershipLostError, StoreError
from .shared import News, SharedStore

__all__ = ["POLL", "Member", "Membership"]

R = TypeVar("R")

POLL = 10.0
"""How often to look for changes that were not announced, in seconds. This also shows whether the server still reacts."""

FIRST_RETRY, LAST_RETRY = 0.1, 2.0
"""How long to wait before trying to connect again, in seconds. The wait doubles each time."""

REFUSED = 10.0
"""How long to wait after the ownership was refused, in seconds."""


class Member(Protocol):
    """Reacts to changes of the ownership and to news."""

    async def gain(self) -> bool:
        """Called when the ownership has been acquired; return whether it is wanted."""
        ...

    def lose(self, error: StoreError) -> None:
        """Called when the ownership is lost. It must call `Membership.end_ownership`."""
        ...

    def beat(self) -> bool:
        """Give a sign of life, if this process is the owner; return whether it is."""
        ...

    def hear(self, news: News, *, complete: bool) -> None:
        """Called with the announced changes. If they are not complete, some changes may have been missed."""
        ...


@final
class Membership:
    """Waits for the ownership and for news, on the event loop.

    Args:
        store: The store, which has been joined.
        member: The object to call.
        log: The logger for failures.
        committing: The limiter of the threads in which operations are committed.
        until_idle: Waits until nothing is being committed.
    """

    def __init__(
        self,
        store: SharedStore,
        member: Member,
        log: logging.Logger,
        committing: anyio.CapacityLimiter,
        until_idle: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._member = member
        self._log = log
        self._committing = committing
        self._until_idle = until_idle
        # Separate limiters, so that a long call in one of them does not delay the others.
        self._owning = anyio.CapacityLimiter(1)
        self._listening = anyio.CapacityLimiter(1)
        # Made by `open`: a scheduler is made anywhere, and scopes need an event loop.
        self._scope: anyio.CancelScope
        self._watching: anyio.CancelScope
        self._failing = False
        self._stopped = anyio.Event()

    async def open(self, *, contend: bool) -> bool:
        """Begin to listen and, if ``contend``, ask for the ownership. Return whether it has been acquired.

        Raises:
            StoreError: if that is not possible.
        """
        self._scope = anyio.CancelScope()
        self._watching = anyio.CancelScope()
        await to_thread.run_sync(self._store.listen, limiter=self._listening)
        return contend and await to_thread.run_sync(self._store.contend, limiter=self._owning)

    async def run(self, contend: bool, owner: bool) -> None:
        """Wait for the ownership and for news, until `stop` is called.

        Args:
            contend: Whether this process wants the ownership and has asked for it.
            owner: Whether this process has it. If so, `Member.gain` was called.
        """
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._listen)
                    if contend and self._store.failover_after is not None:
                        group.start_soon(self._guard, self._store.failover_after)
                    if contend:
                        await self._contend(gained=owner)
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Make `run` return, and wait for it. The ownership is kept until the store is closed."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._stopped.wait()

    def end_ownership(self) -> None:
        """End the ownership after it was lost. Other objects call this too."""
        self._watching.cancel()

    # The ownership

    async def _contend(self, *, gained: bool) -> None:
        asked = True
        delay = FIRST_RETRY
        while True:
            try:
                owner = gained or (not asked and await to_thread.run_sync(self._store.contend, limiter=self._owning))
                while not owner:
                    with anyio.move_on_after(POLL):
                        await wait_readable(self._store.ownership_socket())
                    owner = await to_thread.run_sync(self._store.acquire, limiter=self._owning)
            except StoreError as error:
                self._log_failure(error)
                await anyio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY)
            else:
                self._log_success()
                delay = FIRST_RETRY
                refused = False
                with anyio.CancelScope() as self._watching:
                    refused = not (gained or await self._member.gain())
                    if not refused:
                        await self._watch()
                # Not while a call is being committed in that session.
                await to_thread.run_sync(self._store.resign, limiter=self._committing)
                if refused:
                    await anyio.sleep(REFUSED)
            asked = gained = False

    async def _watch(self) -> None:
        """Wait until the ownership is lost."""
        while True:
            # Commits make the socket readable as well.
            await self._until_idle()
            await wait_readable(self._store.ownership_socket())
            await self._until_idle()
            try:
                await to_thread.run_sync(self._store.check, limiter=self._committing)
            except OwnershipLostError as error:
                self._member.lose(error)

    def _log_failure(self, error: StoreError) -> None:
        if not self._failing:
            self._failing = True
            self._log.warning("This process cannot stand by to run the tasks: %s. It is tried again.", error)

    def _log_success(self) -> None:
        if self._failing:
            self._failing = False
            self._log.info("This process can run the tasks again.")

    async def _guard(self, after: float) -> None:
        """Give signs of life, or depose an owner that gives none."""
        while True:
            await anyio.sleep(after / 3)
            if not self._member.beat():
                with suppress(StoreError):  # `_listen` finds out as well
                    if await to_thread.run_sync(self._store.depose, limiter=self._listening):
                        self._log.warning(
                            "The process that ran the tasks has given no sign of life for %g seconds: its session was ended.",
                            after,
                        )
                    # What was announced in the meantime does not make the socket readable.
                    news = await to_thread.run_sync(self._store.receive, limiter=self._listening)
                    self._member.hear(news, complete=True)

    # The news

    async def _listen(self) -> None:
        delay = FIRST_RETRY
        complete = True
        while True:
            try:
                if not complete:
                    await to_thread.run_sync(self._store.listen, limiter=self._listening)
                    delay = FIRST_RETRY
                    self._member.hear(News(changed=True, removed=frozenset()), complete=False)
                complete = False
                with anyio.move_on_after(POLL) as polling:
                    await wait_readable(self._store.news_socket())
                news = await to_thread.run_sync(self._store.receive, limiter=self._listening)
            except StoreError:
                await anyio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY)
            else:
                complete = True
                self._member.hear(news, complete=not polling.cancelled_caught)
