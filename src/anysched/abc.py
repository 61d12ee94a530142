"""The classes that users implement."""

from ._core.instruments import FinishedRun, Instrument, StartedRun

__all__ = ["FinishedRun", "Instrument", "StartedRun"]
