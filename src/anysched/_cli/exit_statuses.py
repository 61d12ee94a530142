"""The exit statuses of the command line."""

from typing import Final

__all__ = ["EXIT_FAILURE", "EXIT_INTERRUPTED", "EXIT_SIGNAL", "EXIT_USAGE"]

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_SIGNAL: Final = 128
"""To which the number of a signal is added."""
