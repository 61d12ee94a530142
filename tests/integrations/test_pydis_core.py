"""The tables of the page on `pydis_core` match the observed behaviour of it and of `anysched`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "migration"))

from migration_page import SUBJECTS, observe_apart, shown, tables


def test_the_page_says_what_differs_and_what_does_not() -> None:
    """If this fails: ``python tests/migration/migration_page.py`` writes the tables into the page."""
    assert shown() == tables(*map(observe_apart, SUBJECTS))
