"""The store that a text on the command line names."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from anysched.durable import SQLiteStore, Store

__all__ = ["Access", "opened"]

Access: TypeAlias = Literal["read", "change", "create"]
"""What to do with a store: read it, also while a scheduler runs; change what is in it; or change it, and make it if there is
none."""


@contextmanager
def opened(text: str, access: Access) -> Generator[Store]:
    """Open the store that a text names, and close it in the end.

    Raises:
        StoreInUseError: if it is to be changed, and a scheduler has it.
        StoreError: if it cannot be opened. Where there is no store, none is made, unless that is asked for.
    """
    if access == "change":
        with opened(text, "read"):
            pass  # there is one
    store = SQLiteStore(text, read_only=access == "read")
    store.open()
    try:
        yield store
    finally:
        store.close()
