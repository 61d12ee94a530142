"""The dashboard, tested with a client that is not a browser."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from dashboard_client import opened
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount

from anysched import Scheduler
from anysched.history import History
from anysched.web import dashboard
from anysched.web import index as index_module
from anysched.web import keys as keys_module
from support import Gate, errors, fail, nothing, settle

pytestmark = pytest.mark.anyio

HOUR = 3600
ACTION = {"x-anysched-action": "1"}


@asynccontextmanager
async def client_of(app: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver", **options) as client:
        yield client


@pytest.fixture
async def client(scheduler: Scheduler) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(dashboard(scheduler)) as client:
        yield client


@pytest.fixture
async def acting(scheduler: Scheduler) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a dashboard with actions."""
    async with client_of(dashboard(scheduler, actions=True), headers=ACTION) as client:
        yield client


async def table(client: httpx.AsyncClient, **query: Any) -> Any:
    response = await client.get("/api/tasks", params=query)
    assert response.status_code == 200
    return response.json()


async def ids(client: httpx.AsyncClient, **query: Any) -> list[str]:
    return [row["id"] for row in (await table(client, **query))["rows"]]


async def key_of(client: httpx.AsyncClient, text: str, **query: Any) -> str:
    (key,) = {row["key"] for row in (await table(client, **query))["rows"] if row["id"] == text}
    return str(key)


async def detail(client: httpx.AsyncClient, text: str, **query: Any) -> Any:
    response = await client.get(f"/api/tasks/{await key_of(client, text, **query)}")
    assert response.status_code == 200
    return response.json()


# The page


async def test_the_page_and_what_it_loads(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text)
    assert {"static/dashboard.js", "static/dashboard.css", "static/icon.svg"} == set(loaded)
    for path in loaded:
        response = await client.get(f"/{path}")
        assert response.status_code == 200
        again = await client.get(f"/{path}", headers={"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/static/unknown.js", "/static/..%2f__init__.py", "/static/__init__.py", "/unknown"):
        assert (await client.get(path)).status_code == 404


async def test_each_response_forbids_what_is_not_from_here(client: httpx.AsyncClient) -> None:
    for path in ("/", "/static/dashboard.js", "/api/tasks", "/api/overview", "/unknown"):
        headers = (await client.get(path)).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self'",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("no-cache" if path in ("/", "/static/dashboard.js") else "no-store")


def test_the_files_load_nothing_from_elsewhere_and_are_small() -> None:
    contents = {entry.name: entry.read_text("utf-8") for entry in (files("anysched.web") / "static").iterdir()}
    for content in contents.values():
        assert set(re.findall(r"https?://[^\s\"']+", content)) <= {"http://www.w3.org/2000/svg"}
    page = contents["dashboard.html"]
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*src=)", page)
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in contents["dashboard.js"]
    assert sum(map(len, contents.values())) < 100_000


async def test_it_is_mounted_with_one_line(scheduler: Scheduler) -> None:
    app = Starlette(routes=[Mount("/jobs", dashboard(scheduler))])
    scheduler.schedule_later(HOUR, "id", nothing)
    async with client_of(app, follow_redirects=True) as client:
        page = await client.get("/jobs")
        assert str(page.url).endswith("/jobs/")
        assert (await client.get(page.url.join("static/dashboard.css"))).status_code == 200
        assert len((await client.get(page.url.join("api/tasks"))).json()["rows"]) == 1


async def test_before_the_scheduler_runs_and_after_it_is_closed() -> None:
    scheduler = Scheduler("test")
    async with client_of(dashboard(scheduler)) as client:
        assert (await table(client))["total"] == 0
        async with scheduler:
            scheduler.schedule_later(HOUR, "id", nothing)
            assert await ids(client) == ["id"]
        assert (await table(client))["total"] == 0
        assert (await client.get("/api/overview")).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "error"), [(None, TypeError), ("name", TypeError), ([1], TypeError), ([], ValueError)]
)
async def test_what_is_not_a_scheduler_is_refused(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        dashboard(wrong)


async def test_schedulers_that_cannot_be_told_apart_are_refused(scheduler: Scheduler) -> None:
    child = scheduler.child("child")
    for wrong in ([scheduler, scheduler], [child, scheduler], [Scheduler("test"), scheduler]):
        with pytest.raises(ValueError, match="cannot be told apart: the names"):
            dashboard(wrong)
    dashboard([Scheduler("test-2"), child, Scheduler("testing")])


async def test_two_pages_of_one_scheduler_and_of_its_child(scheduler: Scheduler) -> None:
    child = scheduler.child("child")
    app = Starlette(
        routes=[Mount("/a", dashboard(scheduler)), Mount("/b", dashboard(scheduler)), Mount("/c", dashboard(child))]
    )
    scheduler.schedule_later(1, "id", nothing)
    child.schedule_later(2, "child's", nothing)
    async with client_of(app) as client:
        shown = [[row["id"] for row in (await client.get(f"/{page}/api/tasks")).json()["rows"]] for page in "abc"]
    assert shown == [["id", "child's"], ["id", "child's"], ["child's"]]


async def test_behind_a_proxy_that_adds_a_prefix(scheduler: Scheduler) -> None:
    app = Starlette(routes=[Mount("/jobs", dashboard(scheduler))])
    transport = httpx.ASGITransport(app, root_path="/prefix")
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        page = await client.get("/prefix/jobs", follow_redirects=True)
        assert page.url.path == "/prefix/jobs/"
        assert (await client.get(page.url.join("static/dashboard.js"))).status_code == 200
        assert (await client.get(page.url.join("api/tasks"))).json()["total"] == 0


async def test_other_methods_than_get(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    for path in ("/", "/static/dashboard.js", "/api/tasks", "/api/overview", "/api/events"):
        head = await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert "content-security-policy" in head.headers
        for method in ("OPTIONS", "POST", "DELETE"):
            assert (await client.request(method, path)).status_code == 405


async def test_a_query_that_is_huge(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    scheduler.schedule_later(HOUR, "x" * 199, nothing)
    for name in ("search", "status", "scheduler", "order", "page", "unknown"):
        found = await table(client, **{name: "x" * 60_000})
        assert found["total"] == (0 if name in ("search", "scheduler") else 1)
    assert (await client.get("/api/tasks/" + "x" * 60_000)).status_code == 404


# The table


async def test_tasks_in_the_order_of_their_due_times(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    gate = Gate()
    scheduler.schedule("running", gate)
    await gate.started.wait()
    for delay in (30, 10, 20):
        scheduler.schedule_later(delay, ("reminder", delay), nothing)
    expected = ["running", "('reminder', 10)", "('reminder', 20)", "('reminder', 30)"]
    assert await ids(client) == expected
    assert await ids(client, order="descending") == expected[::-1]
    first, second, *_ = (await table(client))["rows"]
    assert (first["status"], second["status"]) == ("running", "pending")
    assert first["due"] <= time.time() * 1e3 < second["due"]
    assert (first["runs"], second["runs"]) == (1, 0)
    gate.open.set()


async def test_pages(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    for number in range(60):
        scheduler.schedule_later(HOUR + number, f"{number:02}", nothing)
    pages = [await table(client, page=page) for page in range(4)]
    assert [len(page["rows"]) for page in pages] == [25, 25, 10, 0]
    assert [row["id"] for page in pages for row in page["rows"]] == [f"{number:02}" for number in range(60)]
    assert {(page["total"], page["pages"]) for page in pages} == {(60, 3)}
    assert (await ids(client, page=1, order="descending"))[0] == "34"


@pytest.mark.parametrize("page", ["", "-1", "x", "1e3", "²", "9" * 30])
async def test_a_page_that_makes_no_sense(client: httpx.AsyncClient, scheduler: Scheduler, page: str) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    assert (await table(client, page=page, status="nonsense", order="nonsense"))["rows"]


async def test_search_and_filters(
    scheduler: Scheduler, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    child = scheduler.child("child")
    scheduler.schedule_later(1 * HOUR, "Tea", nothing)
    scheduler.schedule_later(2 * HOUR, 12345, nothing)
    child.schedule_later(3 * HOUR, "steak", nothing)
    gate = Gate()
    child.schedule_later(0, "team", gate)
    await gate.started.wait()
    await scheduler.schedule("failing tea", fail, ValueError("broken")).wait()
    assert await ids(client, search="TEA") == ["team", "Tea", "steak"]
    assert await ids(client, search="234") == ["12345"]
    assert await ids(client, search="nothing") == []
    assert await ids(client, scheduler="test.child") == ["team", "steak"]
    assert await ids(client, scheduler="test.child", search="ea", status="pending") == ["steak"]
    assert await ids(client, status="running") == ["team"]
    assert await ids(client, status="paused") == []
    (row,) = (await table(client, status="failed"))["rows"]
    assert (row["id"], row["failure"], row["number"]) == ("failing tea", "ValueError: broken", 1)
    assert await ids(client, status="failed", search="tea") == ["failing tea"]
    assert await ids(client, status="failed", scheduler="test.child") == []
    gate.open.set()
    await child.tasks["team"]
    assert await ids(client, status="finished", order="descending") == ["team"]
    assert await ids(client, status="cancelled") == []
    assert len(errors(caplog)) == 1


async def test_a_task_that_was_cancelled_and_still_runs_is_running(
    scheduler: Scheduler, client: httpx.AsyncClient
) -> None:
    gate = Gate(stubborn=True)
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    scheduler.cancel("id")
    assert await ids(client, status="running") == ["id"]
    gate.open.set()
    await task.wait()
    assert await ids(client) == []


async def test_a_paused_task(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    scheduler.schedule_later(HOUR, "id", nothing).pause()
    scheduler.schedule_later(HOUR, "other", nothing)
    assert await ids(client, status="paused") == ["id"]
    assert await ids(client, status="pending") == ["other"]


async def test_several_schedulers_in_one_page(scheduler: Scheduler) -> None:
    async with Scheduler("other") as other:
        async with client_of(dashboard([scheduler, other])) as client:
            scheduler.schedule_later(20, "b", nothing)
            other.schedule_later(10, "a", nothing)
            other.schedule_later(30, "c", nothing)
            assert await ids(client) == ["a", "b", "c"]
            assert (await detail(client, "c"))["scheduler"] == "other"
            other.schedule_later(40, "b", nothing)
            rows = (await table(client))["rows"]
            assert len({row["key"] for row in rows}) == 4


async def test_tasks_that_were_scheduled_before(scheduler: Scheduler) -> None:
    child = scheduler.child("child")
    for number in range(1_000):
        child.schedule_later(HOUR, number, nothing)
    async with client_of(dashboard(scheduler)) as client:
        assert (await table(client))["total"] == 1_000


async def test_tasks_are_not_searched_for_if_there_were_none(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Scheduler] = []

    async def search(_: object, found: Scheduler) -> None:
        searched.append(found)

    monkeypatch.setattr(index_module.TaskIndex, "_add_all", search)
    async with client_of(dashboard(scheduler)) as client:
        scheduler.schedule_later(HOUR, "id", nothing)
        assert await ids(client) == ["id"]
        assert searched == []
    async with client_of(dashboard(scheduler)) as client:
        assert await ids(client) == []
        assert searched == [scheduler]


async def test_tasks_that_were_already_running_are_counted_as_running(scheduler: Scheduler) -> None:
    gate, again = Gate(), Gate()
    scheduler.schedule("id", gate)
    recurring = scheduler.schedule_every(HOUR, "recurring", lambda: again(), first=0)
    await gate.started.wait()
    await again.started.wait()
    scheduler.schedule_later(HOUR, "pending", nothing)
    async with opened(scheduler) as page:

        async def counted() -> tuple[int, int]:
            numbers = await page.numbers()
            return numbers["pending"], numbers["running"]

        assert await counted() == (1, 2)
        gate.open.set()
        again.open.set()
        await settle()
        assert await counted() == (2, 0)
        again.open = anyio.Event()
        recurring.reschedule_later(0)
        await settle()
        assert await counted() == (1, 1)
        recurring.cancel()
        await settle()
        assert await counted() == (1, 0)


async def test_tasks_that_come_and_go_while_those_before_are_found(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "TASKS_PER_STEP", 10)
    for number in range(100):
        scheduler.schedule_later(HOUR, number, nothing)

    async def churn() -> None:
        for number in range(20):
            scheduler.cancel(99 - number)
            scheduler.cancel(30 + number)
            scheduler.schedule_later(HOUR, f"new {number}", nothing)
            await checkpoint()

    async with client_of(dashboard(scheduler)) as client, anyio.create_task_group() as task_group:
        task_group.start_soon(churn)
        await table(client)
        await settle(50)
        assert (await table(client))["total"] == 80
        assert set(await ids(client)) <= {str(task_id) for task_id in scheduler.tasks}


async def test_it_keeps_nothing_of_tasks_that_have_ended(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    for number in range(10):
        scheduler.schedule_later(HOUR, number, nothing)
    await scheduler.schedule("id", nothing)
    scheduler.cancel_all()
    assert (await table(client))["total"] == 0
    (index,) = [item for item in scheduler._registry._own_instruments if isinstance(item, index_module.TaskIndex)]
    assert not any(index._buckets)
    assert (index.count, dict(index.counts), index.running) == (0, {}, {})


# IDs


SCRIPTS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "\0\ud800",
    "",
    "a/../b",
]


@pytest.mark.parametrize("task_id", SCRIPTS)
async def test_ids_are_data(scheduler: Scheduler, client: httpx.AsyncClient, task_id: str) -> None:
    scheduler.schedule_later(HOUR, task_id, nothing)
    response = await client.get("/api/tasks")
    assert response.headers["content-type"] == "application/json"
    (row,) = response.json()["rows"]
    assert row["id"] == task_id
    assert re.fullmatch(r"[0-9a-f]+", row["key"])
    overview = await client.get("/api/overview?window=86400")
    assert overview.json()["timeline"]["rows"][0]["key"] == row["key"]


async def test_ids_that_print_alike_are_told_apart(scheduler: Scheduler, acting: httpx.AsyncClient) -> None:
    class Same:
        def __repr__(self) -> str:
            return "same"

    one, other = Same(), Same()
    scheduler.schedule_later(1 * HOUR, one, nothing)
    scheduler.schedule_later(2 * HOUR, other, nothing)
    first, second = (await table(acting))["rows"]
    assert (first["id"], second["id"]) == ("same", "same")
    assert (await acting.post(f"/api/tasks/{second['key']}/cancel", json={})).status_code == 200
    assert (one in scheduler, other in scheduler) == (True, False)


async def test_ids_that_cannot_be_printed_or_are_long(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise ValueError

    scheduler.schedule_later(1, Unprintable(), nothing)
    scheduler.schedule_later(2, "x" * 10_000, nothing)
    first, second = await ids(client)
    assert "Unprintable object at" in first
    assert second == "x" * 199 + "…"
    assert await ids(client, search="unprintable") == [first]


async def test_the_keys_that_are_remembered_are_limited(
    scheduler: Scheduler, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "MAX_KEYS", 3)
    for number in range(10):
        scheduler.schedule_later(HOUR + number, number, nothing)
    rows = (await table(client))["rows"]
    # A task that is no longer remembered is searched for.
    for row in rows:
        assert (await client.get(f"/api/tasks/{row['key']}")).json()["id"] == row["id"]


async def test_a_key_from_before_a_restart_names_the_same_task(scheduler: Scheduler) -> None:
    scheduler.schedule_later(HOUR, ("reminder", 1), nothing)
    async with client_of(dashboard(scheduler)) as client:
        key = await key_of(client, "('reminder', 1)")
    async with client_of(dashboard(scheduler)) as client:
        assert (await client.get(f"/api/tasks/{key}")).json()["id"] == "('reminder', 1)"
        scheduler.cancel_all()
        gone = (await client.get(f"/api/tasks/{key}")).json()
        assert (gone["status"], gone["runs"], gone["actions"], gone["location"]) == ("ended", [], [], None)
    async with client_of(dashboard(scheduler)) as client:
        assert (await client.get(f"/api/tasks/{key}")).status_code == 404


async def test_arguments_are_not_shown(
    scheduler: Scheduler, acting: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def send(_: str) -> None:
        raise ValueError("broken")

    scheduler.schedule_later(HOUR, "pending", send, "secret")
    await scheduler.schedule("failed", send, "secret").wait()
    paths = ["/api/tasks", "/api/tasks?status=failed", "/api/overview?window=86400"]
    rows = [row for path in paths[:2] for row in (await acting.get(path)).json()["rows"]]
    paths += [f"/api/tasks/{row['key']}" for row in rows]
    assert len(paths) == 5
    for path in paths:
        assert "secret" not in (await acting.get(path)).text
    assert len(errors(caplog)) == 1


# One task


async def test_a_task_with_its_runs_and_failures(
    scheduler: Scheduler, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await scheduler.schedule("id", fail, ValueError("broken")).wait()
    await scheduler.schedule("id", nothing)
    scheduler.schedule_later(HOUR, "id", nothing)
    found = await detail(client, "id")
    assert (found["id"], found["scheduler"], found["status"], found["actions"]) == ("id", "test", "pending", [])
    assert found["due"] > time.time() * 1e3
    assert found["location"].startswith(f"{__file__}:")
    assert [run["status"] for run in found["runs"]] == ["finished", "failed"]
    failed = found["runs"][1]
    assert failed["failure"] == "ValueError: broken"
    assert "in fail" in failed["traceback"]
    assert failed["seconds"] >= 0
    assert len(errors(caplog)) == 1


async def test_a_task_that_has_ended(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    await scheduler.schedule("id", nothing)
    found = await detail(client, "id", status="finished")
    assert (found["status"], found["due"], len(found["runs"])) == ("finished", None, 1)
    assert found["location"].startswith(f"{__file__}:")


async def test_a_history_that_is_passed_is_used_and_added(scheduler: Scheduler) -> None:
    history = History()
    async with client_of(dashboard(scheduler, history=history)) as client:
        await scheduler.schedule("id", nothing)
        assert len(history.runs) == 1
        assert await ids(client, status="finished") == ["id"]


async def test_a_task_that_was_scheduled_before_has_no_known_place(scheduler: Scheduler) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    async with client_of(dashboard(scheduler)) as client:
        assert (await detail(client, "id"))["location"] is None


async def test_tasks_in_one_bucket_are_told_apart(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "BUCKETS", 1)
    async with client_of(dashboard(scheduler)) as client:
        for name in ("one", "two", "three"):
            scheduler.schedule_later(HOUR, name, nothing)
        assert [(await detail(client, name))["id"] for name in ("one", "two", "three")] == ["one", "two", "three"]


# The timeline and the chart


async def overview(client: httpx.AsyncClient, window: object = 600) -> Any:
    return (await client.get("/api/overview", params={"window": str(window)})).json()


async def test_the_timeline_shows_what_ran_runs_and_is_due(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    await scheduler.schedule("past", nothing)
    gate = Gate()
    scheduler.schedule("running", gate)
    await gate.started.wait()
    scheduler.schedule_later(60, "soon", nothing)
    scheduler.schedule_later(HOUR, "late", nothing)
    timeline = (await overview(client))["timeline"]
    assert timeline["end"] - timeline["start"] == 600_000
    rows = {row["id"]: row for row in timeline["rows"]}
    assert [*rows] == ["running", "soon", "past"]
    assert [bar["status"] for bar in rows["past"]["bars"]] == ["finished"]
    assert rows["running"]["bars"][0]["end"] is None
    assert rows["soon"]["bars"] == []
    assert rows["soon"]["due"] > timeline["now"]
    day = (await overview(client, 86_400))["timeline"]["rows"]
    assert [row["id"] for row in day] == ["running", "soon", "late", "past"]
    gate.open.set()


async def test_the_timeline_has_so_many_rows_with_what_is_due_first(
    scheduler: Scheduler, client: httpx.AsyncClient
) -> None:
    for number in range(20):
        await scheduler.schedule(f"past {number}", nothing)
        scheduler.schedule_later(100 - number, f"soon {19 - number}", nothing)
    shown = [row["id"] for row in (await overview(client, "unknown"))["timeline"]["rows"]]
    assert shown == [*(f"soon {number}" for number in range(6)), *(f"past {19 - number}" for number in range(6))]


async def test_the_chart_counts_by_minute(
    scheduler: Scheduler, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await scheduler.schedule("one", nothing)
    await scheduler.schedule("two", fail, ValueError()).wait()
    minutes = (await overview(client))["chart"]
    assert sum(minute["started"] for minute in minutes) == 2
    assert sum(minute["failed"] for minute in minutes) == 1
    assert all(minute["start"] % 60_000 == 0 for minute in minutes)
    assert len(errors(caplog)) == 1


# Actions


async def test_there_are_no_actions_unless_asked_for(scheduler: Scheduler, client: httpx.AsyncClient) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    key = await key_of(client, "id")
    response = await client.post(f"/api/tasks/{key}/cancel", json={}, headers=ACTION)
    assert response.status_code == 404
    assert "id" in scheduler


async def test_cancel(scheduler: Scheduler, acting: httpx.AsyncClient) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    gate = Gate()
    running = scheduler.schedule("running", gate)
    await gate.started.wait()
    assert (await detail(acting, "running"))["actions"][-1] == "cancel"
    for text in ("id", "running"):
        assert (await acting.post(f"/api/tasks/{await key_of(acting, text)}/cancel", json={})).status_code == 200
    await running.wait()
    assert gate.cancelled
    assert not scheduler.tasks


async def test_run_now(scheduler: Scheduler, acting: httpx.AsyncClient) -> None:
    gate = Gate()
    task = scheduler.schedule_later(HOUR, "id", gate)
    key = await key_of(acting, "id")
    assert (await acting.post(f"/api/tasks/{key}/run", json={})).status_code == 200
    await gate.started.wait()
    assert (await acting.post(f"/api/tasks/{key}/run", json={})).status_code == 409
    gate.open.set()
    await task
    assert (await acting.post(f"/api/tasks/{key}/run", json={})).status_code == 409


async def test_postpone(scheduler: Scheduler, acting: httpx.AsyncClient) -> None:
    task = scheduler.schedule_later(HOUR, "id", nothing)
    before = task.due
    assert before is not None
    url = f"/api/tasks/{await key_of(acting, 'id')}/postpone"
    assert (await acting.post(url, json={"seconds": 600})).status_code == 200
    assert task.due is not None
    assert (task.due - before).total_seconds() == pytest.approx(600, abs=0.1)
    for wrong in (0, -1, "60", None, True, 1e12, [1]):
        assert (await acting.post(url, json={"seconds": wrong})).status_code == 400
    for content in (b"", b"[]", b"nonsense", b"\xff"):
        assert (await acting.post(url, content=content)).status_code == 400


async def test_pause_and_resume(scheduler: Scheduler, acting: httpx.AsyncClient) -> None:
    task = scheduler.schedule_later(HOUR, "id", nothing)
    url = f"/api/tasks/{await key_of(acting, 'id')}"
    assert (await detail(acting, "id"))["actions"] == ["run", "postpone", "pause", "cancel"]
    assert (await acting.post(f"{url}/pause", json={})).status_code == 200
    assert task.paused
    assert (await detail(acting, "id"))["actions"] == ["postpone", "resume", "cancel"]
    assert (await acting.post(f"{url}/pause", json={})).status_code == 409
    assert (await acting.post(f"{url}/resume", json={})).status_code == 200
    assert not task.paused


async def test_a_task_that_has_lost_its_id_can_be_cancelled(scheduler: Scheduler, acting: httpx.AsyncClient) -> None:
    gate = Gate()
    predecessor = scheduler.schedule("id", gate)
    await gate.started.wait()
    scheduler.schedule_later(HOUR, "id", nothing, on_conflict="follow").cancel()
    assert "id" not in scheduler
    assert (await detail(acting, "id"))["actions"] == ["cancel"]
    assert (await acting.post(f"/api/tasks/{await key_of(acting, 'id')}/cancel", json={})).status_code == 200
    await predecessor.wait()
    assert gate.cancelled


async def test_an_unknown_action(scheduler: Scheduler, acting: httpx.AsyncClient) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    response = await acting.post(f"/api/tasks/{await key_of(acting, 'id')}/explode", json={})
    assert response.status_code == 400


async def test_actions_are_posted(scheduler: Scheduler, acting: httpx.AsyncClient) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    key = await key_of(acting, "id")
    assert (await acting.get(f"/api/tasks/{key}/cancel")).status_code == 405
    assert (await acting.post("/api/tasks/0123/cancel", json={})).status_code == 404


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, False),
        (ACTION, True),
        ({**ACTION, "origin": "http://testserver"}, True),
        ({**ACTION, "origin": "http://evil.example"}, False),
        ({**ACTION, "origin": "null"}, False),
        ({**ACTION, "origin": "http://[not-an-address"}, False),
        ({**ACTION, "origin": "testserver"}, False),
        ({**ACTION, "sec-fetch-site": "same-origin", "origin": "http://behind-a-proxy.example"}, True),
        ({**ACTION, "sec-fetch-site": "same-site"}, False),
        ({**ACTION, "sec-fetch-site": "cross-site"}, False),
        ({**ACTION, "sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"origin": "http://testserver", "content-type": "application/x-www-form-urlencoded"}, False),
    ],
)
async def test_actions_of_other_origins_and_of_forms_are_refused(
    scheduler: Scheduler, headers: dict[str, str], allowed: bool
) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    async with client_of(dashboard(scheduler, actions=True)) as client:
        key = await key_of(client, "id")
        response = await client.post(f"/api/tasks/{key}/cancel", json={}, headers=headers)
    assert response.status_code == (200 if allowed else 403)
    assert ("id" in scheduler) is not allowed


# Authorization


async def deny(_: Request) -> bool:
    await checkpoint()
    return False


def forget(_: Request) -> Any:
    """Return `None`."""


def ask_for_password(_: Request) -> bool:
    raise HTTPException(401, "who are you?", {"www-authenticate": "Basic"})


@pytest.mark.parametrize(
    ("authorize", "status"), [(deny, 403), (lambda _: False, 403), (forget, 403), (ask_for_password, 401)]
)
async def test_each_request_is_authorized(
    scheduler: Scheduler, authorize: Callable[[Request], bool | Awaitable[bool]], status: int
) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    async with client_of(dashboard(scheduler, actions=True, authorize=authorize)) as client:
        for path in ("/", "/static/dashboard.js", "/api/tasks", "/api/overview", "/api/events", "/unknown"):
            response = await client.get(path)
            assert response.status_code == status
            assert "content-security-policy" in response.headers
        assert (await client.post("/api/tasks/1/cancel", json={}, headers=ACTION)).status_code == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Basic"


async def test_a_refusal_may_have_a_detail_as_in_fastapi(scheduler: Scheduler) -> None:
    def refuse(_: Request) -> bool:
        detail: Any = {"error": "who are you?"}
        raise HTTPException(401, detail)

    async with client_of(dashboard(scheduler, authorize=refuse)) as client:
        response = await client.get("/api/tasks")
    assert (response.status_code, response.json()) == (401, {"error": "who are you?"})


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_check_that_fails_refuses_the_request(scheduler: Scheduler, asynchronous: bool) -> None:
    async def fail_later(_: Request) -> bool:
        await checkpoint()
        raise LookupError

    def fail_at_once(_: Request) -> bool:
        raise LookupError

    app = dashboard(scheduler, authorize=fail_later if asynchronous else fail_at_once)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        response = await client.get("/api/tasks")
    assert (response.status_code, response.text) == (500, "Internal Server Error")


async def test_a_request_that_is_allowed(scheduler: Scheduler) -> None:
    asked = []

    async def authorize(request: Request) -> bool:
        asked.append(request.url.path)
        return request.headers.get("x-user") == "alice"

    async with client_of(dashboard(scheduler, authorize=authorize)) as client:
        assert (await client.get("/api/tasks")).status_code == 403
        assert (await client.get("/api/tasks", headers={"x-user": "alice"})).status_code == 200
    assert asked == ["/api/tasks"] * 2


async def test_websockets_are_closed_and_other_scopes_passed_on(scheduler: Scheduler) -> None:
    app = dashboard(scheduler)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(messages)

    await app({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    await app({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent[1:]] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# Many tasks


@pytest.mark.slow
async def test_many_pending_tasks_hold_up_no_other_task(scheduler: Scheduler) -> None:
    """The time for a million tasks is measured separately; here each batch must be short, in processor time."""
    async with client_of(dashboard(scheduler)) as client:
        for number in range(100_000):
            scheduler.schedule_later(HOUR + number, ("user", number), nothing)
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            last = time.thread_time()
            while True:
                await checkpoint()
                now = time.thread_time()
                longest, last = max(longest, now - last), now

        import gc

        gc.collect()
        gc.freeze()
        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(watch)
                await settle()
                longest = 0.0
                assert (await table(client, order="descending", page=9))["total"] == 100_000
                assert (await table(client, search="99999"))["total"] == 1
                await overview(client, 86_400)
                task_group.cancel_scope.cancel()
        finally:
            gc.unfreeze()
        assert longest < 0.01
        scheduler.cancel_all()
