"""A live page that shows what schedulers do. Requires the extra ``web``.

It is an ASGI application that can be mounted in another one::

    app.mount("/jobs", dashboard(scheduler))
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, cast

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from anysched import ScheduledTask, Scheduler
from anysched.durable import DurableScheduler, DurableTask, StoreError
from anysched.history import History, RunRecord

from .actions import act, act_on_stored, actions_for, actions_for_stored
from .assets import page, static
from .durable import DurableView, WaitingTask
from .durable import status_of as status_of_stored
from .events import EventStream
from .guard import Authorize, Guard, check_same_origin
from .index import Changes, TaskIndex
from .keys import Keys, Name, key_of, text_of
from .overview import WINDOWS, chart, numbers, timeline
from .query import JSON, Query, describe_run, find, milliseconds, status_of
from .server import serve

__all__ = ["dashboard", "serve"]

MAX_STREAMS = 500
"""How many clients may receive events at once."""

MAX_RUNS = 100
"""How many runs of a task are shown."""


def dashboard(
    scheduler: Scheduler | DurableScheduler | Iterable[Scheduler | DurableScheduler],
    *,
    history: History | None = None,
    actions: bool = False,
    authorize: Authorize | None = None,
) -> Starlette:
    """Return an application with a live page that shows what schedulers and their children do.

    It shows IDs, times, failures with their tracebacks, and where tasks were scheduled, to everyone who can reach it:
    mount it behind your own login, or pass ``authorize``. The arguments of tasks are not shown.

    It must run on the event loop of the schedulers.

    Args:
        scheduler: The scheduler or schedulers, in memory or durable. They need not be running yet.
        history: The source of the runs. It is added to the schedulers. If not given, the dashboard creates one.
        actions: Whether tasks can be cancelled, started, postponed, paused, resumed and, if parked, retried.
        authorize: A function or coroutine function that is called with each request and returns whether to answer it.
            It may raise an ``HTTPException`` of Starlette.

    Raises:
        RuntimeError: if called from another thread than the event loop's.
        TypeError: if an argument is not a scheduler.
        ValueError: if no scheduler is given, or one twice, or one with its child, which is shown anyway, or two with the
            same name.
    """
    schedulers = [scheduler] if isinstance(scheduler, (Scheduler, DurableScheduler)) else list(scheduler)
    for other in schedulers:
        if not isinstance(other, (Scheduler, DurableScheduler)):
            raise TypeError(f"expected a Scheduler or a DurableScheduler, not {other!r}")
    if not schedulers:
        raise ValueError("expected at least one scheduler")
    names = sorted(f"{other.name}." for other in schedulers)
    for name, longer in pairwise(names):
        if longer.startswith(name):
            raise ValueError(
                f"the schedulers {name[:-1]!r} and {longer[:-1]!r} cannot be told apart: the names of schedulers on one page "
                "must differ, and children are shown with their parent"
            )
    history = History() if history is None else history
    changes = Changes()
    indexes: dict[TaskIndex, DurableView | None] = {}
    for other in schedulers:
        in_memory = other if isinstance(other, Scheduler) else other.in_process
        in_memory.add_instrument(history)
        stored = None if isinstance(other, Scheduler) else DurableView(other, changes)
        indexes[TaskIndex(in_memory, changes)] = stored
    view = _Dashboard(indexes, changes, history, actions)
    routes = [
        Route("/", page),
        Route("/static/{name}", static),
        Route("/api/events", view.events),
        Route("/api/overview", view.overview),
        Route("/api/tasks", view.tasks),
        Route("/api/tasks/{key}", view.task),
    ]
    if actions:
        routes.append(Route("/api/tasks/{key}/{action}", view.action, methods=["POST"]))
    return Starlette(routes=routes, middleware=[Middleware(Guard, authorize=authorize)])


class _Data(JSONResponse):
    """JSON in ASCII, since an ID may have characters that cannot be encoded in UTF-8."""

    def render(self, content: Any) -> bytes:
        """Return the JSON."""
        return json.dumps(content).encode("ascii")


class _Dashboard:
    """Answers the requests of the page.

    Args:
        indexes: The tasks of each scheduler in memory, and for a durable one, the view of its store.
        changes: The counter of changes.
        history: The runs.
        actions: Whether there are actions.
    """

    def __init__(
        self, indexes: Mapping[TaskIndex, DurableView | None], changes: Changes, history: History, actions: bool
    ) -> None:
        self._indexes = list(indexes)
        self._stores = {index: view for index, view in indexes.items() if view is not None}
        self._changes = changes
        self._history = history
        self._actions = actions
        self._keys = Keys()
        self._streams = anyio.CapacityLimiter(MAX_STREAMS)
        # Only one request at a time may go through all tasks.
        self._looking = anyio.Lock()

    def _now(self) -> datetime:
        return self._indexes[0].scheduler.now()

    async def events(self, _: Request) -> Response:
        """Return the stream of events."""
        async with self._looking:
            for index in self._indexes:
                await index.prepare()

        async def state() -> JSON:
            counted = {index: await view.statistics() for index, view in self._stores.items()}
            stored = {index: statistics for index, statistics in counted.items() if statistics is not None}
            shown = numbers(self._indexes, stored, self._history, self._now())
            roles = sorted({view.role for view in self._stores.values()})
            return {**shown, "roles": roles, "actions": self._actions}

        return EventStream(state, self._changes, self._streams)

    async def overview(self, request: Request) -> Response:
        """Return the timeline and the chart."""
        asked = request.query_params.get("window")
        window = next((window for window in WINDOWS if str(window) == asked), WINDOWS[0])
        async with self._looking:
            now = self._now()
            lines = await timeline(self._indexes, self._history, self._keys, now, window)
        return _Data({"timeline": lines, "chart": chart(self._history, now)})

    async def tasks(self, request: Request) -> Response:
        """Return a page of the table."""
        query = Query.parse(request.query_params)
        async with self._looking:
            waiting = [task for view in self._stores.values() for task in await view.waiting()]
            return _Data(await find(self._indexes, waiting, self._history, query, self._keys))

    async def task(self, request: Request) -> Response:
        """Return one task with its runs."""
        scheduler, task_id = await self._name(request.path_params["key"])
        runs = self._history.runs_of(scheduler, task_id)[-MAX_RUNS:]
        return _Data(
            {
                "id": text_of(task_id, 2_000),
                "scheduler": scheduler,
                "problem": None,
                **await self._present(scheduler, task_id, runs),
                "runs": [{**describe_run(run), "traceback": run.traceback} for run in reversed(runs)],
            }
        )

    async def _present(self, scheduler: str, task_id: Any, runs: Sequence[RunRecord]) -> JSON:
        """Return the current state of a task, as JSON."""
        # There is no record of a task that was dropped before its first run.
        ended = runs[-1].status if runs else "ended"
        view = self._store(scheduler)
        if view is not None:
            stored = await _found(view, task_id)
            return {
                "status": status_of_stored(stored) if stored is not None else ended,
                "due": milliseconds(stored.due) if stored is not None else None,
                "location": None,  # all are scheduled in one place
                "problem": stored.problem if stored is not None else None,
                "actions": actions_for_stored(stored) if stored is not None and self._actions else [],
            }
        _, task = self._current(scheduler, task_id)
        location = self._history.location(task) if task is not None else None
        location = location or next((run.location for run in reversed(runs) if run.location is not None), None)
        return {
            "status": status_of(task) if task is not None else ended,
            "due": milliseconds(task.due) if task is not None else None,
            "location": None if location is None else str(location),
            "actions": actions_for(task) if task is not None and self._actions else [],
        }

    async def action(self, request: Request) -> Response:
        """Perform an action on a task."""
        check_same_origin(request)
        scheduler, task_id = await self._name(request.path_params["key"])
        try:
            body: object = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise HTTPException(400, "expected a JSON object")
        action, seconds = request.path_params["action"], cast("JSON", body).get("seconds")
        view = self._store(scheduler)
        if view is not None:
            stored = await _found(view, task_id)
            if stored is None:
                raise HTTPException(409, "the task has ended")
            await act_on_stored(stored, view, action, seconds)
            return _Data({})
        index, task = self._current(scheduler, task_id)
        if task is None or index is None:
            raise HTTPException(409, "the task has ended")
        act(task, index, action, seconds)
        return _Data({})

    def _store(self, scheduler: str) -> DurableView | None:
        """Return what the store of a scheduler has, if it is a durable one."""
        return next((view for index, view in self._stores.items() if index.scheduler.name == scheduler), None)

    def _current(self, scheduler: str, task_id: Any) -> tuple[TaskIndex | None, ScheduledTask[Any] | None]:
        for index in self._indexes:
            task = index.find(scheduler, task_id)
            if task is not None:
                return index, task
        return None, None

    async def _name(self, key: str) -> Name:
        """Return the scheduler and the ID of a key; search all tasks if the key is from before a restart."""
        name = self._keys.name(key) or await self._search(key)
        if name is None:
            raise HTTPException(404, "the task no longer exists")
        self._keys.key(*name)
        return name

    async def _search(self, key: str) -> Name | None:
        found: list[Name] = []

        def look(tasks: Iterable[ScheduledTask[Any] | WaitingTask]) -> None:
            for task in tasks:
                task_id = task.task.task_id if isinstance(task, WaitingTask) else task.task_id
                if key_of(task.scheduler_name, task_id) == key:
                    found.append((task.scheduler_name, task_id))

        async with self._looking:
            for index in self._indexes:
                await index.visit(look)
                if found:
                    return found[0]
            for view in self._stores.values():
                look(await view.waiting())
        return next(iter(found), None)


async def _found(view: DurableView, task_id: Any) -> DurableTask | None:
    """Return the task that holds an ID in a store, or `None`."""
    try:
        return await view.find(task_id)
    except StoreError as error:
        raise HTTPException(503, str(error)) from None
