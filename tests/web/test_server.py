"""Serving the page over the loopback interface."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import anyio
import httpx
import pytest

from anysched import Scheduler
from anysched.web import dashboard, serve
from support import nothing

pytestmark = pytest.mark.anyio


async def test_it_is_served_until_it_is_cancelled(scheduler: Scheduler) -> None:
    async with anyio.create_task_group() as task_group:
        url: str = await task_group.start(serve, dashboard(scheduler), "127.0.0.1", 0)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert "<title>anysched</title>" in (await client.get("/")).text
            scheduler.schedule_later(3600, "id", nothing)
            assert (await client.get("/api/tasks")).json()["total"] == 1
        task_group.cancel_scope.cancel()
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("/")


async def test_a_stream_of_events_is_cut_off_when_it_stops(scheduler: Scheduler) -> None:
    async with anyio.create_task_group() as task_group:
        url: str = await task_group.start(serve, dashboard(scheduler), "127.0.0.1", 0)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            async with client.stream("GET", "/api/events") as response:
                assert response.status_code == 200
                lines = response.aiter_lines()
                while not (await anext(lines)).startswith("data: "):
                    pass
                task_group.cancel_scope.cancel()
                with anyio.fail_after(20, shield=True), suppress(httpx.HTTPError, StopAsyncIteration):
                    while True:
                        await anext(lines)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("evil.example", 400),
        ("evil.example:8080", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
    ],
)
async def test_the_host_is_checked(scheduler: Scheduler, host: str, status: int) -> None:
    async with anyio.create_task_group() as task_group:
        url: str = await task_group.start(serve, dashboard(scheduler), "127.0.0.1", 0)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert (await client.get("/api/tasks", headers={"host": host})).status_code == status
        task_group.cancel_scope.cancel()


async def test_a_port_that_is_taken(scheduler: Scheduler) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            await serve(dashboard(scheduler), "127.0.0.1", taken.getsockname()[1])


async def test_a_failure_of_the_server_is_raised(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    from anysched.web import server

    class Broken:
        @staticmethod
        async def serve(*_: Any, **__: Any) -> None:
            raise ValueError("broken")

    monkeypatch.setattr(server, "_hypercorn", Broken)
    with pytest.raises(ExceptionGroup) as info:
        await serve(dashboard(scheduler), "127.0.0.1", 0)
    assert isinstance(info.value.exceptions[0], ValueError)
