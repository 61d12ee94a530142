"""The arguments of ``anysched durable``."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from anysched._cli.options import ParagraphFormatter

from .notation import is_database, parse_id

if TYPE_CHECKING:  # what it imports, not every Python has
    from anysched.durable import TaskId

__all__ = ["ConflictPolicy", "DurableArguments", "StatusName", "Verb", "add_durable_arguments"]

Verb: TypeAlias = Literal["ls", "show", "cancel", "retry", "export", "import"]
StatusName: TypeAlias = Literal["pending", "paused", "running", "parked", "unknown"]
ConflictPolicy: TypeAlias = Literal["error", "keep", "replace"]

DESCRIPTION: Final = """\
Show and change the store of a durable scheduler. STORE is the path of its SQLite file, or the URI of its PostgreSQL database:
postgresql://...

ls, show and export read it, even while a scheduler runs. cancel and retry change it: a database even while
schedulers run, but a file needs exclusive access, and they are refused while a scheduler uses it. import is refused while a
scheduler runs.

An ID is written in its stored form, JSON; a tuple is a list. A string that is not JSON can be written without quotes:

  tea  '"tea"'            the string "tea"
  7                       the integer 7
  '"7"'                   the string "7"
  '["reminder", 7]'       the tuple ("reminder", 7)
"""

EPILOG: Final = """\
exit status:
  0      done
  1      the task does not exist or is not parked; the export is
         malformed, or the store already has one of its IDs
  2      the arguments are wrong, or the store cannot be opened, read or
         written, or a scheduler uses it
"""

LS: Final = """\
List tasks, sorted by the stored form of their IDs: status, due time (UTC), handler, ID, and why a task is parked.

A task is pending, paused, running (or it was when the process ended), parked (it cannot run and waits for "retry") or
unknown (it waits until its handler is registered).
"""

SHOW: Final = """\
Show the task that holds an ID.
"""

CANCEL: Final = """\
Cancel the tasks with these IDs, so that they never run. The others are cancelled even if one of the IDs is not found.
"""

RETRY: Final = """\
Make parked tasks run again when the scheduler runs next.
"""

EXPORT: Final = """\
Write the contents of the store to standard output, as JSON lines: IDs, due times, recurrences, arguments, which tasks
are paused or parked, the numbers of runs and attempts, and the order. This is a consistent snapshot.

To move to another store, end the scheduler first, because later changes are not in the export:

  anysched durable export bot.db > tasks.jsonl
  anysched durable import postgresql:///app --scheduler bot tasks.jsonl

Times are microseconds of UTC since 1970.
"""

IMPORT: Final = """\
Import an export into a store, completely or not at all. The store is created if it does not exist.

A store that never had a task takes over the identity of the exported one, and the keys of its runs stay the same. In
other stores the tasks get new keys. Use only one of the two stores afterwards, since both would run the tasks.
"""


@dataclass(frozen=True, slots=True)
class DurableArguments:
    """The arguments, checked.

    Attributes:
        verb: The command.
        store: The text that names the store.
        scheduler: The name of the scheduler, if it was given.
        task_ids: The IDs.
        prefix: The first elements of the IDs, or the beginning of strings; `None` for all.
        status: The status; `None` for all.
        as_json: Whether to write JSON.
        file: The export to import; ``"-"`` is standard input.
        on_conflict: What to do about IDs that the store already has.
    """

    verb: Verb
    store: str
    scheduler: str | None = None
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
    """Add the commands of ``anysched durable`` with their arguments, and its help."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    def add(verb: Verb, summary: str, description: str) -> ArgumentParser:
        added = verbs.add_parser(verb, help=summary, description=description, formatter_class=ParagraphFormatter)
        added.add_argument("store", metavar="STORE", type=_store, help="an SQLite file, or postgresql://...")
        added.add_argument(
            "--scheduler", metavar="NAME", help="the scheduler, if several have their tasks in the database"
        )
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
    retry = add("retry", "make parked tasks run again", RETRY)
    for changing in (cancel, retry):
        changing.add_argument("task_ids", metavar="ID", type=_task_id, nargs="+", help="the ID of a task")
    add("export", "write the contents of a store", EXPORT)
    bring = add("import", "import an export into a store", IMPORT)
    bring.add_argument("file", metavar="FILE", help='the export; "-" is standard input')
    bring.add_argument(
        "--on-conflict",
        choices=("error", "keep", "replace"),
        default="error",
        help="if the store has one of the IDs: import nothing, keep its tasks, or replace them (default: %(default)s)",
    )


def _store(text: str) -> str:
    if is_database(text):
        if find_spec("psycopg") is None:
            raise ArgumentTypeError("a PostgreSQL database needs psycopg: pip install 'anysched[postgres]'")
    elif "://" in text:
        raise ArgumentTypeError(f"expected the path of an SQLite file or postgresql://..., not {text!r}")
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
