"""The built-in sample: a delay, a replacement, cancellations, and a command that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

__all__ = ["feed_sample", "feed_samples"]

SAMPLE: tuple[tuple[float, bytes], ...] = (
    (0.0, b'{"id": "now", "run": ["echo", "no delay: at once"]}'),
    (0.0, b'{"id": "tea", "in": 1, "run": ["echo", "after one second: the tea is ready"]}'),
    (0.0, b'{"id": "report", "in": 1, "run": ["echo", "the first version, never run"]}'),
    (0.0, b'{"id": "alarm", "in": 3, "run": ["echo", "cancelled before it was due, never run"]}'),
    (0.0, b'{"id": "backup", "in": 0.5, "run": ["sh", "-c", "echo copying...; sleep 60; echo never copied"]}'),
    (0.0, b'{"id": "broken", "in": 1.5, "run": ["sh", "-c", "echo this one fails >&2; exit 3"]}'),
    (0.5, b'{"id": "report", "in": 1.5, "run": ["echo", "the second version, in place of the first"]}'),
    (0.5, b'{"cancel": "alarm"}'),
    (1.2, b'{"cancel": "backup"}'),
)
"""Each line with the seconds after which it is fed. The sample takes two seconds."""


PAUSE: Final = 4.0
"""In seconds, between two samples."""


async def feed_sample(take: Callable[[bytes | None], None]) -> None:
    """Feed the lines of the sample, each at its time.

    Args:
        take: Called with each line.
    """
    begin = anyio.current_time()
    for delay, line in SAMPLE:
        await anyio.sleep_until(begin + delay)
        take(line)


async def feed_samples(take: Callable[[bytes | None], None]) -> None:
    """Feed the lines of the sample repeatedly.

    Args:
        take: Called with each line.
    """
    while True:
        await feed_sample(take)
        await anyio.sleep(PAUSE)
