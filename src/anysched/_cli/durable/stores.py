"""Opening the store that is named on the command line."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from anysched.durable import SQLiteStore, Store

__all__ = ["Access", "opened"]

Access: TypeAlias = Literal["read", "change", "create"]
"""How to open a store: to read it, even while a scheduler runs; to change it; or to change it and create it if needed."""


@contextmanager
def opened(text: str, access: Access) -> Generator[Store]:
    """Open the store that a text names, and close it at the end.

    Raises:
        StoreInUseError: if the access is not ``"read"`` and a scheduler uses the store.
        StoreError: if it cannot be opened. A missing store is only created with ``"create"``.
    """
    if access == "change":
        with opened(text, "read"):
            pass  # it exists
    store = SQLiteStore(text, read_only=access == "read")
    store.open()
    try:
        yield store
    finally:
        store.close()
