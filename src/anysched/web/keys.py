"""Keys that identify tasks in URLs. An ID itself may be any object, of any length, and should not appear in logs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from hashlib import blake2b
from typing import TypeAlias

__all__ = ["Keys", "Name", "text_of"]

MAX_KEYS = 20_000
MAX_TEXT_LENGTH = 200

Name: TypeAlias = tuple[str, Hashable]
"""The name of a scheduler, and an ID."""


class Keys:
    """A mapping of the most recent keys to tasks.

    The key of a task is the same in another process if the text of its ID is the same there.
    """

    def __init__(self) -> None:
        self._names: OrderedDict[str, Name] = OrderedDict()

    def key(self, scheduler: str, task_id: Hashable) -> str:
        """Return the key of a task."""
        name = scheduler, task_id
        digest = key = key_of(scheduler, task_id)
        # Different IDs may have the same text.
        number = 0
        while self._names.setdefault(key, name) != name:
            number += 1
            key = f"{digest}-{number}"
        self._names.move_to_end(key)
        if len(self._names) > MAX_KEYS:
            self._names.popitem(last=False)
        return key

    def name(self, key: str) -> Name | None:
        """Return the scheduler and the ID of a key, or `None` if the key is not (or no longer) known."""
        return self._names.get(key)


def key_of(scheduler: str, task_id: Hashable) -> str:
    """Return the default key of a task, before a suffix makes it unique."""
    text = f"{scheduler}\0{type(task_id).__qualname__}\0{text_of(task_id, 10_000)}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def text_of(value: object, length: int = MAX_TEXT_LENGTH) -> str:
    """Return an ID as text of limited length, even if its `repr` raises an exception."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:
        text = object.__repr__(value)
    return text if len(text) <= length else text[: length - 1] + "…"
