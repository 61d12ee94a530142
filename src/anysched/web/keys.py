"""Keys that name tasks in addresses. IDs can be any objects, of any length, and not for everybody's eyes."""

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
    """Remembers which task each key names, for the last of them.

    The key of a task is the same in another process if its ID prints the same there.
    """

    def __init__(self) -> None:
        self._names: OrderedDict[str, Name] = OrderedDict()

    def key(self, scheduler: str, task_id: Hashable) -> str:
        """Return the key of a task."""
        name = scheduler, task_id
        digest = key = key_of(scheduler, task_id)
        # IDs that print the same may differ.
        number = 0
        while self._names.setdefault(key, name) != name:
            number += 1
            key = f"{digest}-{number}"
        self._names.move_to_end(key)
        if len(self._names) > MAX_KEYS:
            self._names.popitem(last=False)
        return key

    def name(self, key: str) -> Name | None:
        """Return what a key names, or `None` if that is not known (any more)."""
        return self._names.get(key)


def key_of(scheduler: str, task_id: Hashable) -> str:
    """Return the key of a task, as long as no other task has it."""
    text = f"{scheduler}\0{type(task_id).__qualname__}\0{text_of(task_id, 10_000)}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def text_of(value: object, length: int = MAX_TEXT_LENGTH) -> str:
    """Return an ID as text of limited length, whatever it does when it is printed."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:
        text = object.__repr__(value)
    return text if len(text) <= length else text[: length - 1] + "…"
