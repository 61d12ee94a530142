"""The dashboard in Chromium, served by hypercorn on both event loops."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypercorn.config import Config

from anysched import Scheduler
from anysched.durable import DurableScheduler, MemoryStore
from anysched.durable.operations import Claim, Park, Put
from anysched.web import dashboard

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
try:
    from check_site import WIDTHS, browser, open_page
finally:
    del sys.path[0]

HOUR = 3600
AXE = os.environ.get("AXE")
"""The path of axe-core, which checks whether a page is accessible."""


class Site:
    """A scheduler with its dashboard, served over the loopback interface."""

    def __init__(self, portal: BlockingPortal, backend: str, port: int) -> None:
        self._portal = portal
        self._backend = backend
        self._port = port
        self._stop: Callable[[], Any] = lambda: None
        self.url = f"http://127.0.0.1:{port}/"
        self.start()

    def start(self) -> None:
        self._done, (self.scheduler, self._stop) = self._portal.start_task(self._main)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError

    def stop(self) -> None:
        self._portal.call(self._stop)
        with suppress(CancelledError):  # hypercorn on asyncio cancels the task in which it serves
            self._done.result(30)

    def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a method of the scheduler on its event loop."""
        call = partial(method, *args, **options)
        return self._portal.call(lambda: [call()])[0]  # in a list: the portal would await a handle

    def make(self) -> Any:
        return Scheduler("app")

    async def _main(self, *, task_status: TaskStatus[Any]) -> None:
        config = Config()
        config.bind = [f"127.0.0.1:{self._port}"]
        config.accesslog = config.errorlog = None
        config.graceful_timeout = 0.1
        stop = anyio.Event()
        async with self.make() as scheduler:
            app: Any = dashboard(scheduler, actions=True)
            task_status.started((scheduler, stop.set))
            serve: Any
            if self._backend == "trio":
                from hypercorn.trio import serve
            else:
                from hypercorn.asyncio import serve
            await serve(app, config, shutdown_trigger=stop.wait)


class DurableSite(Site):
    """A durable scheduler with its dashboard. One task is parked."""

    def make(self) -> Any:
        store = MemoryStore()
        store.open()
        store.commit([Put('["mail",7]', 0, 0, "mail", "[]"), Claim(1, 0), Park(1, "TypeError: it does not fit")])
        store.close()
        scheduler = DurableScheduler("app", store)
        scheduler.handler("mail")(broken)
        return scheduler


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@contextmanager
def served(backend: Literal["asyncio", "trio"], make: type[Site] = Site) -> Iterator[Site]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with start_blocking_portal(backend) as portal:
        site = make(portal, backend, port)
        try:
            yield site
        finally:
            site.stop()


@pytest.fixture(params=["asyncio", "trio"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with served(request.param) as site:
        yield site


@pytest.fixture(params=["asyncio", "trio"])
def durable_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with served(request.param, DurableSite) as site:
        yield site


@pytest.fixture
def page(driver: Any, site: Site) -> Iterator[Any]:
    """The opened page. At the end its console must be empty, and nothing may have been loaded from elsewhere."""
    open_page(driver, site.url, "desktop")
    driver.get_log("browser")
    yield driver
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert [url for url in driver.execute_script(script) if not url.startswith(site.url)] == []
    messages = [entry["message"] for entry in driver.get_log("browser")]
    assert [
        message for message in messages if "ERR_CONNECTION" not in message and "ERR_INCOMPLETE" not in message
    ] == []
    driver.get("about:blank")  # it follows no more events


def see(driver: Any, script: str, expected: Any = True) -> None:
    """Wait until a script returns a value."""
    end = time.monotonic() + 20
    while (found := driver.execute_script(f"return {script}")) != expected:
        if time.monotonic() > end:
            raise AssertionError(f"{script} is {found!r}, not {expected!r}")
        time.sleep(0.05)


def click(driver: Any, script: str) -> None:
    driver.execute_script(f"return {script}").click()


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


IDS = "[...document.querySelectorAll('#rows td.id a')].map(link => link.textContent)"
STATUSES = "[...document.querySelectorAll('#rows .status')].map(status => status.textContent)"


def text(name: str) -> str:
    return f"document.getElementById('{name}').textContent"


def link(task_id: str) -> str:
    return f"[...document.querySelectorAll('#rows td.id a')].find(link => link.textContent === {task_id!r})"


def button(dialog: str, name: str) -> str:
    return f"[...document.querySelectorAll('#{dialog} button')].find(button => button.textContent === {name!r})"


async def broken(seconds: float = 0.5) -> None:
    await anyio.sleep(seconds)
    raise ValueError("the answer is wrong")


def choose(driver: Any, name: str, value: str) -> None:
    driver.execute_script(
        f"const box = document.getElementById('{name}'); box.value = {value!r};"
        "box.dispatchEvent(new Event('change', {bubbles: true}))"
    )


def test_a_task_goes_from_pending_to_failed(site: Site, page: Any) -> None:
    see(page, text("connection"), "Live")
    site.call(site.scheduler.schedule_later, 3, "report", broken, 3)
    see(page, STATUSES, ["pending"])
    see(page, text("pending"), "1")
    see(page, STATUSES, ["running"])
    see(page, text("failed"), "1")
    see(page, IDS, [])
    see(page, "document.getElementById('empty').hidden", False)
    choose(page, "status", "failed")
    see(page, IDS, ["report"])
    assert "ValueError: the answer is wrong" in page.execute_script(
        "return document.querySelector('#rows').textContent"
    )
    click(page, link("report"))
    see(page, "document.getElementById('detail').open")
    see(page, text("detail-heading"), "report")
    shown = page.execute_script("return document.getElementById('detail').innerText")
    for part in ("app", "test_browser.py", "Traceback (most recent call last)", "the answer is wrong"):
        assert part in shown
    see(page, "document.querySelectorAll('#timeline circle.failed').length", 1)
    see(page, "document.querySelectorAll('#chart rect.failed').length", 1)


def test_search_sort_and_pages(site: Site, page: Any) -> None:
    for number in range(60):
        site.call(site.scheduler.schedule_later, HOUR + number, f"user {number:02}", broken)
    see(page, text("total"), "60 tasks")
    see(page, f"{IDS}[0]", "user 00")
    click(page, "document.getElementById('next')")
    see(page, f"{IDS}[0]", "user 25")
    click(page, "document.getElementById('order')")
    see(page, f"{IDS}[0]", "user 59")
    page.execute_script("document.activeElement.blur()")
    press(page, "/")
    press(page, "4", "2")
    see(page, IDS, ["user 42"])
    assert page.execute_script("return document.activeElement.id") == "search"


def test_cancel_by_click_after_a_question(site: Site, page: Any) -> None:
    site.call(site.scheduler.schedule_later, HOUR, "keep", broken)
    site.call(site.scheduler.schedule_later, HOUR, "drop", broken)
    see(page, IDS, ["keep", "drop"])
    click(page, link("drop"))
    see(page, f"{button('detail', 'Cancel')} !== undefined")
    click(page, button("detail", "Cancel"))
    see(page, "document.getElementById('confirm').open")
    click(page, button("confirm", "Back"))
    see(page, "document.getElementById('confirm').open", False)
    assert len(site.scheduler.tasks) == 2
    click(page, button("detail", "Cancel"))
    click(page, button("confirm", "Cancel"))
    see(page, IDS, ["keep"])
    see(page, "document.querySelectorAll('dialog[open]').length", 0)
    assert list(site.scheduler.tasks) == ["keep"]


def test_postpone_and_run_now(site: Site, page: Any) -> None:
    task = site.call(site.scheduler.schedule_later, HOUR, "report", broken)
    due = site.call(lambda: task.due)
    see(page, IDS, ["report"])
    click(page, link("report"))
    see(page, f"{button('detail', 'Postpone')} !== undefined")
    click(page, button("detail", "Postpone"))
    choose(page, "seconds", "86400")
    click(page, button("confirm", "Postpone"))
    see(page, "document.getElementById('confirm').open", False)
    assert 86_300 < (site.call(lambda: task.due) - due).total_seconds() < 86_500
    click(page, button("detail", "Run now"))
    click(page, button("confirm", "Run now"))
    see(page, text("failed"), "1")
    # The task has no more actions, and the dialog shows its outcome.
    see(page, "document.querySelectorAll('#detail .buttons').length", 0)
    see(page, "document.querySelector('#detail .status').textContent", "failed")


def test_a_click_counts_if_the_dialog_changes_meanwhile(site: Site, page: Any) -> None:
    """The dialog is updated between the press of the mouse button and its release."""
    from selenium.webdriver import ActionChains

    task = site.call(site.scheduler.schedule_later, HOUR, "report", broken)
    see(page, IDS, ["report"])
    click(page, link("report"))
    see(page, f"{button('detail', 'Postpone')} !== undefined")
    due = "document.querySelector('#detail .facts time').dateTime"
    before = page.execute_script(f"return {due}")
    postpone = page.execute_script(f"return {button('detail', 'Postpone')}")
    ActionChains(page).click_and_hold(postpone).perform()
    site.call(lambda: task.reschedule_later(2 * HOUR))
    see(page, f"{due} !== {before!r}")
    ActionChains(page).release().perform()
    see(page, "document.getElementById('confirm').open")
    assert page.execute_script("return document.getElementById('confirm-yes').textContent") == "Postpone"


def test_what_is_parked_is_retried(driver: Any, durable_site: Site) -> None:
    open_page(driver, durable_site.url, "desktop")
    see(driver, STATUSES, ["parked"])
    see(driver, text("parked"), "1")
    see(driver, "document.getElementById('parked').checkVisibility()")
    choose(driver, "status", "parked")
    assert "TypeError: it does not fit" in driver.execute_script("return document.querySelector('#rows').textContent")
    click(driver, link("('mail', 7)"))
    see(driver, "document.getElementById('detail').open")
    see(driver, f"{button('detail', 'Retry')} !== undefined")
    assert "TypeError: it does not fit" in driver.execute_script("return document.getElementById('detail').innerText")
    check(driver)
    click(driver, button("detail", "Retry"))
    click(driver, button("confirm", "Retry"))
    see(driver, text("parked"), "0")
    see(driver, text("failed"), "1")  # the handler has run, and failed
    see(driver, "document.querySelector('#detail .status').textContent", "failed")
    driver.get("about:blank")


def test_a_scheduler_in_memory_has_nothing_parked(site: Site, page: Any) -> None:
    site.call(site.scheduler.schedule_later, HOUR, "report", broken)
    see(page, STATUSES, ["pending"])
    see(page, "document.getElementById('parked').checkVisibility()", False)


def test_it_reconnects_after_a_restart(site: Site, page: Any) -> None:
    site.call(site.scheduler.schedule_later, HOUR, "before", broken)
    see(page, IDS, ["before"])
    page.execute_script("window.notReloaded = true")
    site.stop()
    see(page, "document.getElementById('connection').dataset.state", "lost")
    site.start()
    site.call(site.scheduler.schedule_later, HOUR, "after", broken)
    see(page, "document.getElementById('connection').dataset.state", "live")
    see(page, IDS, ["after"])
    see(page, "window.notReloaded")


def test_more_tabs_than_connections(site: Site, page: Any) -> None:
    """A browser has six connections to a server, for all tabs together; only the one that is seen follows the events."""
    first = page.current_window_handle
    site.call(site.scheduler.schedule_later, HOUR, "report", broken)
    for _ in range(7):
        page.switch_to.new_window("tab")
        page.get(site.url)
        see(page, text("connection"), "Live")
        see(page, IDS, ["report"])
    site.call(site.scheduler.schedule_later, HOUR, "second", broken)
    see(page, IDS, ["report", "second"])
    for handle in page.window_handles:
        if handle != first:
            page.switch_to.window(handle)
            page.close()
    page.switch_to.window(first)
    see(page, IDS, ["report", "second"])


def test_ids_that_are_scripts_are_text(site: Site, page: Any) -> None:
    task_ids = ["<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked = 1'>"]
    for number, task_id in enumerate(task_ids):
        site.call(site.scheduler.schedule_later, 60 + number, task_id, broken)
    see(page, IDS, task_ids)
    click(page, "document.querySelector('#rows a')")
    see(page, text("detail-heading"), task_ids[0])
    click(page, button("detail", "Cancel"))
    see(page, "document.querySelector('#confirm-text bdi').textContent", task_ids[0])
    see(page, "document.querySelectorAll('#timeline a').length", 2)
    see(page, "document.querySelectorAll('img').length", 1)  # the one of the heading
    see(page, "typeof window.hacked", "undefined")


def test_an_empty_id_can_be_clicked(site: Site, page: Any) -> None:
    site.call(site.scheduler.schedule_later, 60, " ", broken)
    see(page, IDS, ["(empty)"])
    see(page, "document.querySelector('#timeline a text').textContent", "(empty)")
    click(page, "document.querySelector('#timeline a')")
    see(page, text("detail-heading"), "(empty)")


def test_a_click_on_the_timeline_counts_although_time_passes(site: Site, page: Any) -> None:
    from selenium.webdriver import ActionChains

    site.call(site.scheduler.schedule_later, 60, "report", broken)
    see(page, "document.querySelectorAll('#timeline a').length", 1)
    now = "document.querySelector('#timeline .now-text').textContent"
    link = page.execute_script("return document.querySelector('#timeline a text')")
    before = page.execute_script(f"return {now}")
    ActionChains(page).click_and_hold(link).perform()
    see(page, f"{now} !== {before!r}")
    ActionChains(page).release().perform()
    see(page, text("detail-heading"), "report")


def test_the_dialog_is_drawn_again_after_a_failed_request(site: Site, page: Any) -> None:
    site.call(site.scheduler.schedule_later, HOUR, "report", broken)
    see(page, IDS, ["report"])
    click(page, link("report"))
    see(page, "document.querySelector('#detail .status')?.textContent", "pending")
    page.execute_script(
        "window.realFetch = window.fetch;"
        "window.fetch = async () => new Response('the store fails', {status: 503});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    see(page, text("detail-body"), "the store fails")
    page.execute_script("window.fetch = window.realFetch")
    site.call(site.scheduler.schedule_later, HOUR, "other", broken)
    see(page, "document.querySelector('#detail .status')?.textContent", "pending")
    see(page, text("detail-heading"), "report")


def test_by_keyboard_alone(site: Site, page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    site.call(site.scheduler.schedule_later, HOUR, "report", broken)
    see(page, IDS, ["report"])
    press(page, "/")
    press(page, *"report")
    see(page, text("total"), "1 task")
    for _ in range(4):  # status, scheduler, order, the task
        press(page, Keys.TAB)
    assert page.execute_script("return document.activeElement.textContent") == "report"
    press(page, Keys.ENTER)
    see(page, "document.getElementById('detail').open")
    see(page, f"{button('detail', 'Cancel')} !== undefined")
    page.execute_script(f"{button('detail', 'Cancel')}.focus()")
    press(page, Keys.ENTER)
    see(page, "document.activeElement.id", "confirm-no")
    press(page, Keys.ESCAPE)
    see(page, "document.getElementById('confirm').open", False)
    press(page, Keys.ESCAPE)
    see(page, "document.getElementById('detail').open", False)
    see(page, "location.hash", "")
    see(page, "document.activeElement.textContent", "report")


@pytest.fixture(scope="module")
def busy_site() -> Iterator[Site]:
    with served("asyncio") as site:
        scheduler = site.scheduler
        for number in range(40):
            site.call(scheduler.schedule_later, 30 + number * 20, ("reminder", number), broken)
        site.call(scheduler.schedule, "a long job with a long name that has to be broken somewhere", anyio.sleep, HOUR)
        site.call(scheduler.schedule, "report", broken)
        site.call(scheduler.schedule_every, 3, "feed", anyio.sleep, 1, first=0)
        time.sleep(2)
        yield site


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [*WIDTHS])
def test_it_is_accessible_and_fits(driver: Any, busy_site: Site, width: str, scheme: str) -> None:
    open_page(driver, busy_site.url, width, scheme)
    see(driver, "document.querySelectorAll('#rows tr').length > 10")
    see(driver, "document.querySelectorAll('#timeline svg').length", 1)
    check(driver)
    choose(driver, "status", "failed")
    see(driver, IDS, ["report"])
    click(driver, link("report"))
    see(driver, "document.getElementById('detail').open")
    check(driver)
    press(driver, "\ue00c")  # escape
    choose(driver, "status", "pending")
    see(driver, "document.querySelectorAll('#rows tr').length > 10")
    click(driver, "document.querySelector('#rows a')")
    see(driver, f"{button('detail', 'Postpone')} !== undefined")
    click(driver, button("detail", "Postpone"))
    check(driver)
    driver.get("about:blank")


def check(driver: Any) -> None:
    """Check that the page fits its window and is accessible."""
    assert driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    if AXE is None:
        pytest.skip("AXE does not name the file of axe-core")
    driver.execute_script(Path(AXE).read_text("utf-8"))
    result = driver.execute_async_script("axe.run().then(arguments[0])")
    assert [
        (violation["id"], [node["html"] for node in violation["nodes"]]) for violation in result["violations"]
    ] == []
    assert len(result["passes"]) > 10
