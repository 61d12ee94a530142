"""The command line: ``python -m anysched``, or ``anysched``. See ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ._cli.arguments import parse_arguments
from ._cli.crontab.arguments import CrontabArguments
from ._cli.durable.arguments import DurableArguments
from ._cli.exit_statuses import EXIT_FAILURE, EXIT_USAGE
from ._cli.streams import closed_streams, leave_streams, prepare_process, print_error

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the schedule that the arguments name.

    Args:
        argv: The arguments, without the program's name; `None` for those of the process.

    Returns:
        The exit status for the process.
    """
    prepare_process()
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        if "stdout" in closed_streams():
            print_error("the standard output is closed; to see nothing, redirect it to /dev/null")
            return EXIT_USAGE
        options = parse_arguments(arguments)
        # Imported here: the modules need POSIX, and neither needs the packages of the other.
        if isinstance(options, CrontabArguments):
            from ._cli.crontab.app import run_crontab

            return run_crontab(options)
        if isinstance(options, DurableArguments):
            from ._cli.durable.app import run_durable

            return run_durable(options)
        from ._cli.app import run

        return run(options)
    finally:
        failure = leave_streams()
        if failure is not None:  # the help; the rest is written without the buffer of the stream
            print_error(f"cannot write to the standard output: {failure.strerror}")
            raise SystemExit(EXIT_FAILURE)


if __name__ == "__main__":
    sys.exit(main())
