"""Statements as data, for connections that are used in different ways: blocking, with ``await``, through SQLAlchemy."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

__all__ = ["Rows", "Statement", "Steps"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of SQL.

    Attributes:
        text: The text, with placeholders such as ``%(id)s``.
        values: The values of these.
        plan: Whether it is planned for its values each time, and not prepared: the best plan depends on them.
    """

    text: str
    values: Mapping[str, object] = field(default_factory=dict[str, object])
    plan: bool = False


Rows: TypeAlias = list[tuple[Any, ...]]
"""What a statement has returned."""

Steps: TypeAlias = Generator[Statement, Rows, R]
"""Statements in turn, each of which is sent its rows; at the end, a result."""
