"""Serving the page without another server: with Hypercorn, on the event loop of the scheduler."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import TaskStatus
from hypercorn.config import Config
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

__all__ = ["serve"]

GRACE = 0.5
"""How many seconds requests may take when the server stops; event streams never end by themselves."""


async def serve(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application on the running event loop, until this is cancelled.

    Use it in programs that do not have a server: ``await task_group.start(serve, dashboard(scheduler))``.

    Only requests for this host or a loopback name are answered, so that other sites cannot reach the application
    through a name that they let point to this machine (DNS rebinding).

    Args:
        app: The application.
        host: The name or the IPv4 address to listen on.
        port: The port; 0 for any free port.
        task_status: Reports the address, such as ``http://127.0.0.1:8080/``, when the server is ready.

    Raises:
        OSError: if it cannot listen on the address.
    """
    listener = socket.create_server((host, port))
    address = f"http://{host}:{listener.getsockname()[1]}/"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = GRACE
    guarded: Any = TrustedHostMiddleware(app, allowed_hosts=[host, "127.0.0.1", "localhost"], www_redirect=False)
    stop = anyio.Event()
    hypercorn = _hypercorn()

    async def run() -> None:
        # On asyncio it raises a cancellation if it interrupts a request at the end of the grace period.
        with anyio.CancelScope(shield=True), suppress(anyio.get_cancelled_exc_class()):
            await hypercorn.serve(guarded, config, shutdown_trigger=stop.wait)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(run)
        try:
            task_status.started(address)
            await anyio.sleep_forever()
        finally:
            stop.set()


def _hypercorn() -> Any:
    """Return Hypercorn's module for the running event loop."""
    if anyio.get_cancelled_exc_class().__module__.partition(".")[0] == "trio":
        from hypercorn import trio

        return trio
    from hypercorn import asyncio

    return asyncio
