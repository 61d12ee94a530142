"""A client of the dashboard that is not a browser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from anysched.web import dashboard

__all__ = ["Page", "opened"]


class Page:
    """A client of the dashboard."""

    def __init__(self, client: httpx.AsyncClient, app: Any) -> None:
        self.client = client
        self.app = app

    async def rows(self, **query: Any) -> list[Any]:
        response = await self.client.get("/api/tasks", params=query)
        assert response.status_code == 200
        rows: list[Any] = response.json()["rows"]
        return rows

    async def ids(self, **query: Any) -> list[tuple[str, str]]:
        return [(row["id"], row["status"]) for row in await self.rows(**query)]

    async def key(self, task_id: str) -> str:
        (key,) = [row["key"] for row in await self.rows() if row["id"] == task_id]
        return str(key)

    async def detail(self, task_id: str) -> Any:
        response = await self.client.get(f"/api/tasks/{await self.key(task_id)}")
        assert response.status_code == 200
        return response.json()

    async def act(self, task_id: str, action: str, **body: Any) -> tuple[int, str]:
        key = await self.key(task_id)
        return await self.act_by_key(key, action, **body)

    async def act_by_key(self, key: str, action: str, **body: Any) -> tuple[int, str]:
        response = await self.client.post(f"/api/tasks/{key}/{action}", json=body)
        return response.status_code, response.text

    async def numbers(self) -> Any:
        """Return the first event."""
        chunks: list[bytes] = []
        ended = anyio.Event()

        async def receive() -> Any:
            if not chunks:
                await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and b"data: " in message["body"]:
                chunks.append(message["body"])
                ended.set()

        scope = {
            "type": "http", "method": "GET", "path": "/api/events", "raw_path": b"/api/events", "root_path": "",
            "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http", "server": ("testserver", 80),
            "client": ("testclient", 1),
        }  # fmt: skip
        await self.app(scope, receive, send)
        return json.loads(chunks[0].removeprefix(b"data: "))


@asynccontextmanager
async def opened(*schedulers: Any, actions: bool = True) -> AsyncIterator[Page]:
    app = dashboard(schedulers, actions=actions)
    transport = httpx.ASGITransport(app)
    headers = {"x-anysched-action": "1"}
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as client:
        yield Page(client, app)
