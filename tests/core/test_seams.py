"""The boundaries between the modules of the core: access to the handle's private attributes, and public names."""

import ast
from pathlib import Path

import anysched
from anysched import DuplicateTaskError, ScheduledTask, Scheduler, SchedulerStatistics
from anysched._core import task as task_module
from anysched._core.timer_queue import Timer

CORE = Path(task_module.__file__).parent
PRIVATE = {
    name
    for name in [*vars(ScheduledTask), *ScheduledTask.__slots__]
    if name.startswith("_") and not name.startswith("__") and name not in vars(Timer)
}


def touches() -> tuple[list[str], list[str]]:
    """Every place outside of its module that reads or calls a private attribute of a handle, or assigns one."""
    reads, writes = [], []
    for path in sorted(CORE.rglob("*.py")):
        if path.name == "task.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in PRIVATE:
                # `self._x` is the handle's in its subclass alone; other classes have attributes of the same names.
                own = ast.unparse(node.value) in ("self", "super()")
                if own and path.name != "recurring.py":
                    continue
                place = f"{path.name}:{node.lineno} {node.attr}"
                if not isinstance(node.ctx, ast.Load):
                    writes.append(place)
                elif not own:
                    reads.append(place)
    return reads, writes


def test_few_places_outside_of_its_module_touch_a_handle_and_none_writes_its_fields() -> None:
    reads, writes = touches()
    assert writes == []
    assert len(reads) <= 25, "\n".join(reads)


def public(value: object) -> set[str]:
    return {name for name in dir(value) if name.isidentifier() and not name.startswith("_")}


def test_nothing_but_what_is_documented_can_be_reached_without_an_underscore() -> None:
    reference = "".join(path.read_text("utf-8") for path in (Path(__file__).parents[2] / "docs" / "api").glob("*.md"))
    assert "autoclass:: anysched.ScheduledTask" in reference
    assert public(ScheduledTask) == {
        "Status", "args", "cancel", "due", "exception", "function", "is_current", "last_started", "last_status", "name", "pause", "paused",
        "recurs", "reschedule_at", "reschedule_later", "result", "resume", "return_value", "run_count", "scheduler_name", "status", "task_id",
        "wait",
    }  # fmt: skip
    assert public(Scheduler("test")) == {
        "add_instrument", "busy_descendants", "cancel", "cancel_all", "child", "close", "join", "name", "now", "pause",
        "remove_instrument", "reschedule_at", "reschedule_later", "resume", "run", "schedule", "schedule_at", "schedule_at_times",
        "schedule_every", "schedule_later", "seconds_until_due", "start", "state", "statistics", "tasks",
    }  # fmt: skip
    assert public(SchedulerStatistics(0, 0, None, 0, 0, 0, 0)) == {
        "cancelled", "failed", "finished", "next_due", "pending", "running", "started",
    }  # fmt: skip
    assert public(DuplicateTaskError("test", 1)) == {"add_note", "args", "scheduler", "task_id", "with_traceback"}
    # Submodules are attributes of the package once they have been imported.
    assert public(anysched) - set(anysched.__all__) <= {
        "abc", "annotations", "cron", "durable", "history", "opentelemetry", "pytest_plugin", "testing", "web",
    }  # fmt: skip
