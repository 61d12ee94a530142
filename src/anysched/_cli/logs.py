"""Log records of the library and of the event loop, reported instead of written to the standard error across the report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

from .page import CommandFailedError

__all__ = ["logs_to"]


class _Handler(logging.Handler):
    def __init__(self, error: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record, but not the failure of a command, which is reported by itself."""
        if record.exc_info is None or not isinstance(record.exc_info[1], CommandFailedError):
            self._error(self.format(record))


@contextmanager
def logs_to(error: Callable[[str], None]) -> Generator[None]:
    """Pass warnings and errors on as long as the context lasts.

    Otherwise `logging` would write those of asyncio to the standard error, and wait for its reader.

    Args:
        error: Called with each message.
    """
    logger = logging.getLogger()
    handler = _Handler(error)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
