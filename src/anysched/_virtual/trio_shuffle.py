"""Running ready trio tasks in an order that depends on a seed. trio shuffles them, so it gets the random numbers from here.

What this sets is private to trio; pytest-trio and Hypothesis do the same.
"""

from __future__ import annotations

import threading
from random import Random
from typing import Any

from trio._core import _run

__all__ = ["seed_trio", "unseed_trio"]

_trio: Any = _run


class RandomByThread(Random):
    """Random numbers for trio: from the source of the thread, or else from trio's own.

    Args:
        original: trio's own.
        was_deterministic: What trio had set before.
    """

    def __init__(self, original: Random, was_deterministic: bool) -> None:
        super().__init__()
        self.original = original
        self.was_deterministic = was_deterministic
        self.seeded: dict[int, Random] = {}

    def random(self) -> float:
        """Return a random number from 0 to 1."""
        return self._source().random()

    def getrandbits(self, k: int, /) -> int:
        """Return a random number of ``k`` bits."""
        return self._source().getrandbits(k)

    def _source(self) -> Random:
        return self.seeded.get(threading.get_ident(), self.original)


_lock = threading.Lock()


def seed_trio(seed: int) -> None:
    """Make the run of trio in this thread shuffle its tasks by a seed."""
    with _lock:
        if not isinstance(_trio._r, RandomByThread):
            _trio._r = RandomByThread(_trio._r, _trio._ALLOW_DETERMINISTIC_SCHEDULING)
            _trio._ALLOW_DETERMINISTIC_SCHEDULING = True
        _trio._r.seeded[threading.get_ident()] = Random(seed)  # noqa: S311


def unseed_trio() -> None:
    """End what `seed_trio` has begun."""
    with _lock:
        numbers: RandomByThread = _trio._r
        del numbers.seeded[threading.get_ident()]
        if not numbers.seeded:
            _trio._r = numbers.original
            _trio._ALLOW_DETERMINISTIC_SCHEDULING = numbers.was_deterministic
