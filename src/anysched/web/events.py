"""Server-sent events that report changes as long as the client reads."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import anyio
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from .index import Changes
from .query import JSON

__all__ = ["EventStream"]

INTERVAL = 1.0
"""The minimum time between two events, in seconds."""

HEARTBEAT = 15.0
"""After this many seconds without an event, a comment shows proxies that the connection is alive."""

SEND_TIMEOUT = 10.0
"""A client that does not read for this many seconds is disconnected."""


class EventStream(Response):
    """A response that sends an event at the start and after changes.

    An event contains the current state, never a list of changes: a client that reads slowly misses states, and nothing
    is stored for it.

    Args:
        state: Returns the state to send.
        changes: The counter of changes.
        limiter: Limits the number of clients.
    """

    media_type = "text/event-stream"

    def __init__(self, state: Callable[[], Awaitable[JSON]], changes: Changes, limiter: anyio.CapacityLimiter) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._state = state
        self._changes = changes
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects or stops reading."""
        if scope["method"] == "HEAD":
            await send(self._start())
            await send({"type": "http.response.body", "body": b""})
            return
        # Checked first, because on trio older versions of anyio raise trio's `WouldBlock` instead of their own.
        if self._limiter.available_tokens < 1:
            await PlainTextResponse("too many clients", 503, {"retry-after": "10"})(scope, receive, send)
            return
        self._limiter.acquire_on_behalf_of_nowait(self)
        try:
            await self._serve(receive, send)
        finally:
            self._limiter.release_on_behalf_of(self)

    async def _serve(self, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as task_group:

            async def wait_disconnected() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                task_group.cancel_scope.cancel()

            task_group.start_soon(wait_disconnected)
            await self._send_events(send)
            task_group.cancel_scope.cancel()

    def _start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}

    async def _send_events(self, send: Send) -> None:
        """Send events until the client stops reading."""

        async def deliver(message: Message) -> bool:
            with anyio.move_on_after(SEND_TIMEOUT):
                try:
                    await send(message)
                except OSError:  # some servers raise it if the client has disconnected
                    return False
                return True
            return False

        async def write(text: str) -> bool:
            return await deliver({"type": "http.response.body", "body": text.encode(), "more_body": True})

        # The browser reconnects after this many milliseconds.
        going = await deliver(self._start()) and await write("retry: 2000\n\n")
        while going:
            version, state = self._changes.version, await self._state()
            going = await write(f"data: {json.dumps(state)}\n\n")
            await anyio.sleep(INTERVAL)
            while going:
                with anyio.move_on_after(HEARTBEAT) as scope:
                    await self._changes.wait(version)
                # Some numbers change as time passes, and the scheduler may have started or closed without a task.
                if not scope.cancelled_caught or {**await self._state(), "now": state["now"]} != state:
                    break
                going = await write(": still here\n\n")
