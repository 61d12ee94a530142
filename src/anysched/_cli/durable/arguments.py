"""The arguments of ``anysched durable``."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from anysched._cli.options import ParagraphFormatter

from .notation import parse_id

if TYPE_CHECKING:  # what it imports, not every Python has
    from anysched.durable import TaskId

__all__ = ["ConflictPolicy", "DurableArguments", "StatusName", "Verb", "add_durable_arguments"]

Verb: TypeAlias = Literal["ls", "show", "cancel", "retry", "export", "import"]
StatusName: TypeAlias = Literal["pending", "paused", "running", "parked", "unknown"]
ConflictPolicy: TypeAlias = Literal["error", "keep", "replace"]

DESCRIPTION: Final = """\
Look into the store of a durable scheduler, and change it. STORE is the path of its SQLite file.

ls, show and export read it, also while a scheduler runs. cancel, retry and import need it for themselves: they are refused
while a scheduler has the file.

An ID is written in JSON, as it is stored; a tuple is a list. A string that is not JSON may also be written as it is:

  tea  '"tea"'            the string "tea"
  7                       the integer 7
  '"7"'                   the string "7"
  '["reminder", 7]'       the tuple ("reminder", 7)
"""

EPILOG: Final = """\
exit status:
  0      done
  1      there is no such task, or it is not parked; what was to be
         imported is malformed, or the store has one of the IDs
  2      the arguments are wrong, or the store cannot be opened, read or
         written, or a scheduler has it
"""

LS: Final = """\
List tasks, sorted by their IDs as they are stored: status, due time (UTC), handler, ID, and why a task is parked.

A task is pending, paused, running (or it was when the process ended), parked (it cannot run, and waits for "retry") or
unknown (it waits until its handler is registered).
"""

SHOW: Final = """\
Show the task that holds an ID.
"""

CANCEL: Final = """\
Cancel the tasks that hold IDs: they never run. Each is cancelled, also if there is no task for another ID.
"""

RETRY: Final = """\
Have tasks that are parked run again, when the scheduler runs next.
"""

EXPORT: Final = """\
Write all that the store keeps to the standard output, as lines of JSON: IDs, due times, recurrences, arguments, what is
paused or parked, the numbers of runs and attempts, and the order. It is as the store was at one moment.

To move to another store, end the scheduler first; what it does later is not in the export:

  anysched durable export old.db | anysched durable import new.db

Times are microseconds of UTC since 1970.
"""

IMPORT: Final = """\
Bring an export into a store, which is made if there is none: all of it, or nothing.

A store that never had a task becomes the one that was exported, and the keys of its runs stay the same. In another store
the tasks get new keys. Use only one of the two stores afterwards: both would run the tasks.
"""


@dataclass(frozen=True, slots=True)
class DurableArguments:
    """The arguments, checked.

    Attributes:
        verb: What to do.
        store: The text that names the store.
        task_ids: The IDs.
        prefix: The first elements of the IDs, or the beginning of strings, if not all are asked for.
        status: The status, if not all are asked for.
        as_json: Whether to write JSON.
        file: What to import; ``"-"`` is the standard input.
        on_conflict: What to do about IDs that the store has.
    """

    verb: Verb
    store: str
    task_ids: tuple[TaskId, ...] = ()
    prefix: str | tuple[TaskId, ...] | None = None
    status: StatusName | None = None
    as_json: bool = False
    file: str = "-"
    on_conflict: ConflictPolicy = "error"

    @classmethod
    def of(cls, options: dict[str, Any]) -> DurableArguments:
        """Return the arguments that were parsed."""
        task_ids = tuple(options.pop("task_ids", ()))
        return cls(task_ids=task_ids, **options)


def add_durable_arguments(parser: ArgumentParser) -> None:
    """Add the verbs of ``anysched durable`` with their arguments, and its help."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def add(verb: Verb, summary: str, description: str) -> ArgumentParser:
        added = verbs.add_parser(verb, help=summary, description=description, formatter_class=ParagraphFormatter)
        added.add_argument("store", metavar="STORE", type=_store, help="the path of an SQLite file")
        return added

    ls = add("ls", "list tasks", LS)
    ls.add_argument(
        "--prefix",
        type=_prefix,
        metavar="ID",
        help="only strings with this beginning, or tuples with these first elements",
    )
    ls.add_argument(
        "--status",
        choices=("pending", "paused", "running", "parked", "unknown"),
        metavar="STATUS",
        help="only tasks with this status: pending, paused, running, parked or unknown",
    )
    show = add("show", "show one task", SHOW)
    show.add_argument("task_ids", metavar="ID", type=_task_id, nargs=1, help="the ID")
    for listing in (ls, show):
        listing.add_argument("--json", dest="as_json", action="store_true", help="write a JSON object for each task")
    cancel = add("cancel", "cancel tasks", CANCEL)
    retry = add("retry", "have parked tasks run again", RETRY)
    for changing in (cancel, retry):
        changing.add_argument("task_ids", metavar="ID", type=_task_id, nargs="+", help="the ID of a task")
    add("export", "write all that a store keeps", EXPORT)
    bring = add("import", "bring an export into a store", IMPORT)
    bring.add_argument("file", metavar="FILE", nargs="?", default="-", help='the export; "-", the default, is stdin')
    bring.add_argument(
        "--on-conflict",
        choices=("error", "keep", "replace"),
        default="error",
        help="what to do about IDs that the store has: import nothing, keep its tasks, or replace them (default: %(default)s)",
    )


def _store(text: str) -> str:
    if "://" in text:
        raise ArgumentTypeError(f"expected the path of an SQLite file, not {text!r}")
    return text


def _task_id(text: str) -> TaskId:
    try:
        return parse_id(text)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"{text!r} is not an ID: {error}") from None


def _prefix(text: str) -> str | tuple[TaskId, ...]:
    prefix = _task_id(text)
    if isinstance(prefix, int):
        raise ArgumentTypeError(f"expected a string or a list, not {text!r}")
    return prefix
