"""The stream of events, in virtual time: a client is a pair of functions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import pytest

from anysched import Scheduler
from anysched import web as web_module
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from anysched.web import dashboard
from support import errors, fail, nothing

pytestmark = pytest.mark.anyio

HOUR = 3600
SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "/api/events",
    "raw_path": b"/api/events",
    "root_path": "",
    "query_string": b"",
    "headers": [],
    "http_version": "1.1",
    "scheme": "http",
    "server": ("testserver", 80),
    "client": ("testclient", 1),
}


class Client:
    """A client that follows the events.

    Attributes:
        status: The status of the response.
        chunks: What it has got, with the time of each.
        ended: Set when the application has returned.
    """

    def __init__(self, *, reads: bool = True) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[tuple[float, str]] = []
        self.ended = anyio.Event()
        self._reads = reads
        self._requested = False
        self._gone = anyio.Event()

    async def follow(self, app: Any) -> None:
        await app(dict(SCOPE), self._receive, self._send)
        self.ended.set()

    def disconnect(self) -> None:
        self._gone.set()

    @property
    def states(self) -> list[tuple[float, Any]]:
        return [(at, json.loads(text[6:])) for at, text in self.chunks if text.startswith("data: ")]

    async def _receive(self) -> Any:
        if not self._requested:
            self._requested = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        elif not self._reads and len(self.chunks) >= 2:
            await anyio.sleep_forever()
        elif message.get("body"):
            self.chunks.append((anyio.current_time(), message["body"].decode()))


@asynccontextmanager
async def following(app: Any, *clients: Client) -> AsyncIterator[None]:
    async with anyio.create_task_group() as task_group:
        for client in clients:
            task_group.start_soon(client.follow, app)
        yield
        for client in clients:
            client.disconnect()


async def test_the_state_at_first_and_after_each_change(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    async with following(dashboard(scheduler), client):
        await anyio.sleep(5)
        assert client.status == 200
        assert client.headers[b"content-type"].startswith(b"text/event-stream")
        assert b"content-length" not in client.headers
        (_, first), *more = client.states
        assert more == []
        assert (first["pending"], first["running"], first["failed"], first["lateness"]) == (0, 0, 0, None)
        assert (first["schedulers"], first["state"], first["actions"]) == (["test"], "running", False)
        task = scheduler.schedule_later(5, "id", fail, ValueError())
        child = scheduler.child("child")
        child.schedule_later(HOUR, "id", nothing)
        await anyio.sleep(0.5)
        assert client.states[-1][1]["pending"] == 2
        assert client.states[-1][1]["schedulers"] == ["test", "test.child"]
        await task.wait()
        await anyio.sleep(2)
        last = client.states[-1][1]
        assert (last["pending"], last["failed"], last["finished"]) == (1, 1, 0)
        assert last["lateness"] == pytest.approx(0, abs=0.01)
        assert last["now"] == pytest.approx(virtual_clock.now().timestamp() * 1e3, abs=5_000)
    assert len(errors(caplog)) == 1


async def test_many_changes_are_one_event_a_second(scheduler: Scheduler) -> None:
    client = Client()
    async with following(dashboard(scheduler), client):
        for number in range(100):
            scheduler.schedule_later(HOUR, number, nothing)
            await anyio.sleep(0.1)
        await anyio.sleep(3)
    times = [at for at, _ in client.states]
    assert 9 <= len(times) <= 13
    assert all(later - before >= 0.999 for before, later in pairwise(times))
    assert client.states[-1][1]["pending"] == 100


async def test_pause_and_resume_and_postponement_are_changes(scheduler: Scheduler) -> None:
    client = Client()
    async with following(dashboard(scheduler), client):
        await anyio.sleep(2)
        scheduler.schedule_later(HOUR, "id", nothing)
        await anyio.sleep(2)
        scheduler.reschedule_later(2 * HOUR, "id")
        await anyio.sleep(2)
        assert len(client.states) == 3
        for action in (scheduler.pause, scheduler.resume):
            action("id")
            await anyio.sleep(2)
        assert len(client.states) == 5


async def test_a_connection_without_events_is_kept_alive(scheduler: Scheduler) -> None:
    client = Client()
    async with following(dashboard(scheduler), client):
        await anyio.sleep(35)
        assert [text for _, text in client.chunks[2:]] == [": still here\n\n"] * 2


async def test_numbers_that_change_as_time_passes(scheduler: Scheduler) -> None:
    client = Client()
    async with following(dashboard(scheduler), client):
        await scheduler.schedule("id", nothing)
        await anyio.sleep(5)
        assert client.states[-1][1]["lateness"] is not None
        await anyio.sleep(700)
        assert client.states[-1][1]["lateness"] is None
        assert len(client.states) < 10


async def test_a_scheduler_that_starts_and_closes_without_tasks(virtual_clock: VirtualClock) -> None:
    scheduler = Scheduler("test")
    client = Client()
    async with following(dashboard(scheduler), client):
        for state in ("new", "running", "closed"):
            if state == "running":
                context = AsyncExitStack()
                await context.enter_async_context(scheduler)
            elif state == "closed":
                await context.aclose()
            await anyio.sleep(20)
            assert client.states[-1][1]["state"] == state


@pytest.mark.parametrize("message", [0, 1, 3])
async def test_a_server_that_raises_an_error_if_the_client_has_gone(scheduler: Scheduler, message: int) -> None:
    sent: list[Any] = []

    class Gone(Client):
        async def _send(self, message_: Any) -> None:
            if len(sent) == message:
                raise OSError("disconnected")
            sent.append(message_)

    client = Gone()
    async with following(dashboard(scheduler), client):
        await client.ended.wait()
    assert len(sent) == message


async def test_a_request_for_the_headers_is_not_a_stream(scheduler: Scheduler) -> None:
    client = Client()
    await dashboard(scheduler)({**SCOPE, "method": "HEAD"}, client._receive, client._send)
    assert client.status == 200
    assert client.headers[b"content-type"].startswith(b"text/event-stream")
    assert client.chunks == []


async def test_a_client_that_disconnects_is_forgotten(scheduler: Scheduler) -> None:
    client = Client()
    async with following(dashboard(scheduler), client):
        await anyio.sleep(1)
        client.disconnect()
        await client.ended.wait()


@pytest.mark.parametrize("change", [True, False])
async def test_a_client_that_does_not_read_is_dropped(scheduler: Scheduler, change: bool) -> None:
    client = Client(reads=False)
    async with following(dashboard(scheduler), client):
        await anyio.sleep(1.5)
        start = anyio.current_time()
        if change:
            scheduler.schedule_later(HOUR, "id", nothing)
        await client.ended.wait()
        assert anyio.current_time() - start == pytest.approx(10 if change else 24.5, abs=1.1)
    assert len(client.chunks) == 2


async def test_so_many_clients_and_no_more(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "MAX_STREAMS", 100)
    app = dashboard(scheduler)
    clients = [Client() for _ in range(100)]
    async with following(app, *clients):
        await anyio.sleep(1)
        late = Client()
        await late.follow(app)
        assert (late.status, late.headers[b"retry-after"]) == (503, b"10")
        scheduler.schedule_later(HOUR, "id", nothing)
        await anyio.sleep(2)
        assert all(client.states[-1][1]["pending"] == 1 for client in clients)
        clients[0].disconnect()
        await clients[0].ended.wait()
        async with following(app, another := Client()):
            await anyio.sleep(1)
            assert another.status == 200
