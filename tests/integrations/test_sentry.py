"""The page on Sentry: the events that its SDK would send, with the transport replaced."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import sentry_sdk
from documentation import load_app
from sentry_sdk.transport import Transport

import anysched

EVENTS: list[Any] = []


class Keep(Transport):  # type: ignore[misc]  # not installed where types are checked
    """Keeps the events instead of sending them."""

    def capture_envelope(self, envelope: Any) -> None:
        event = envelope.get_event()
        if event is not None:
            EVENTS.append(event)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_each_failure_is_one_event_grouped_by_scheduler_and_kind_of_id(backend: str) -> None:
    page = load_app("integrations/sentry.md")
    EVENTS.clear()
    page.init(dsn="https://key@example.invalid/1", transport=Keep)
    try:
        anyio.run(page.use, backend=backend)
        sentry_sdk.flush()
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.init()
    assert sorted(event["fingerprint"] for event in EVENTS) == [
        ["mail", "newsletter", "{{ default }}"],
        ["mail", "reminder", "{{ default }}"],
        ["mail", "reminder", "{{ default }}"],
    ]
    (value,) = EVENTS[0]["exception"]["values"]
    assert value["type"] == "ConnectionError"
    assert any(frame["function"] == "send" for frame in value["stacktrace"]["frames"])
    assert EVENTS[0]["tags"]["scheduler"] == "mail"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_suppressed_exceptions_are_not_sent(backend: str) -> None:
    page = load_app("integrations/sentry.md")
    EVENTS.clear()

    async def main() -> None:
        async with anyio.create_task_group() as task_group:
            anysched.create_task(page.send(1), task_group=task_group, suppressed_exceptions=(ConnectionError,))
            anysched.create_task(page.send(2), task_group=task_group)

    page.init(dsn="https://key@example.invalid/1", transport=Keep)
    try:
        anyio.run(main, backend=backend)
        sentry_sdk.flush()
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.init()
    assert [event["exception"]["values"][0]["value"] for event in EVENTS] == ["user 2 is gone"]
