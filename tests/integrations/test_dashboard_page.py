"""The page on the dashboard: its FastAPI application shows a task that fails. And Quart."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import httpx2
import pytest
import trio
from documentation import load_app

from anysched import Scheduler
from anysched.web import dashboard


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_fastapi(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    module = load_app("how-to/dashboard.md")
    monkeypatch.setattr(module.random, "random", lambda: 0.0)
    monkeypatch.setattr(module.random, "uniform", lambda *_: 0.01)
    with TestClient(module.app, backend=backend) as client:
        page = client.get("/jobs")
        assert page.status_code == 200
        assert "<title>anysched</title>" in page.text
        assert client.get("/jobs/static/dashboard.js").status_code == 200
        end = time.monotonic() + 10
        while not (rows := client.get("/jobs/api/tasks?status=failed").json()["rows"]) and time.monotonic() < end:
            time.sleep(0.01)
        assert [(row["id"], row["failure"]) for row in rows] == [("news", "ConnectionError: news: connection refused")]


def test_quart_on_trio() -> None:
    from hypercorn.config import Config
    from hypercorn.middleware.dispatcher import TrioDispatcherMiddleware
    from hypercorn.trio import serve
    from quart_trio import QuartTrio

    quart = QuartTrio(__name__)

    @quart.get("/hello")
    async def hello() -> str:
        return "hello"

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None

    async def main() -> None:
        stop = trio.Event()
        async with Scheduler("app") as scheduler:
            scheduler.schedule_later(3600, "id", trio.sleep, 0)
            app: Any = TrioDispatcherMiddleware({"/jobs": dashboard(scheduler), "": quart})  # type: ignore[dict-item]
            async with trio.open_nursery() as nursery:
                (address,) = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait))
                async with httpx2.AsyncClient(base_url=address, trust_env=False, follow_redirects=True) as client:
                    page = await client.get("/jobs")
                    assert str(page.url).endswith("/jobs/")
                    assert "<title>anysched</title>" in page.text
                    rows = (await client.get("/jobs/api/tasks")).json()["rows"]
                    assert [row["id"] for row in rows] == ["id"]
                    assert (await client.get("/hello")).text == "hello"
                stop.set()

    trio.run(main)
