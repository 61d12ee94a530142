"""The tables of the page on `pydis_core`, as far as they are about `anysched`; ``tests/integrations`` tests the others."""

from __future__ import annotations

import pytest
from migration_page import both, observe_apart, shown, titles

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen() -> dict[str, str]:
    """The observations of `anysched` on both backends, by row."""
    return dict(zip(titles(), map(both, observe_apart("asyncio"), observe_apart("trio")), strict=True))


def test_the_page_says_what_anysched_does(seen: dict[str, str]) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for table in shown().values()
        for line in table.splitlines()[2:]
    ]
    assert {row[0]: row[-1] for row in rows} == seen
    assert len(rows) == len(seen)


def test_no_coroutine_is_leaked(seen: dict[str, str]) -> None:
    assert not [row for row, cell in seen.items() if "never awaited" in cell]
