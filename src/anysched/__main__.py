"""The command line: ``python -m anysched``, or ``anysched``. See ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ._cli.app import run
from ._cli.arguments import parse_arguments

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the schedule that the arguments name.

    Args:
        argv: The arguments, without the program's name; `None` for those of the process.

    Returns:
        The exit status for the process.
    """
    return run(parse_arguments(argv))


if __name__ == "__main__":
    sys.exit(main())
