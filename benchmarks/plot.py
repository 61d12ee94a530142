"""The chart of the main figures: how many times as much as `anysched` each peer takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .peers import PEERS
from .rows import SIZES, Figures

__all__ = ["plot"]

_ROWS = {
    "later": "schedule_later, an hour out",
    "cancel": "cancel",
    "again": "cancel + schedule again",
    "bytes": "memory for a pending ID",
    "later-bursts": "schedule_later until it has run",
    "soon-bursts": "schedule until it has run",
    "later-at-once": "100,000 due at once",
    "hold-up": "longest hold-up of another task",
}
# Mid-tones, which stand out from white and from black alike.
_COLOURS = {
    "loop": "#8c959f",
    "pydis_core": "#d9822b",
    "anyio": "#3b8eea",
    "aiojobs": "#a371f7",
    "apscheduler": "#d6547b",
}
_TEXT = "#7d8590"


def plot(path: Path, table: Mapping[str, Figures], machine: Mapping[str, Any]) -> None:
    """Draw the chart as SVG, for a page that may be light or dark.

    Args:
        path: The file to write.
        table: The medians, by row and peer.
        machine: What the figures depend on, for the caption.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "anysched"  # the same figures make the same file
    from matplotlib import pyplot as plt

    names = [name for name in _ROWS if table.get(name, {}).get("anysched")]
    figure, axes = plt.subplots(figsize=(9, 0.9 * len(names) + 1.2), layout="constrained")
    height = 0.8 / len(_COLOURS)
    for position, (peer, colour) in enumerate(_COLOURS.items()):
        bars = [
            (index + (position - (len(_COLOURS) - 1) / 2) * height, table[name][peer] / table[name]["anysched"])
            for index, name in enumerate(names)
            # A hold-up is for all IDs together: one by fewer IDs says nothing beside it.
            if peer in table[name] and (name != "hold-up" or PEERS[peer].most >= SIZES[name])
        ]
        if not bars:
            continue
        # A logarithmic axis has no zero: the bars grow from "as much as anysched", to either side.
        drawn = axes.barh(
            [place for place, _ in bars],
            [ratio - 1 for _, ratio in bars],
            height * 0.92,
            left=1,
            color=colour,
            label=PEERS[peer].title,
        )
        labels = [f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}" for _, ratio in bars]
        axes.bar_label(drawn, labels, padding=3, fontsize=7, color=_TEXT)
    axes.axvline(1, color=_TEXT, linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), [_ROWS[name] for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel(
        "times as much as anysched with coroutines (right of the line: anysched takes less)\n"
        f"asyncio, Python {machine['python']}, {machine['processor']}, {machine['cores']} cores, {machine['date']}",
        color=_TEXT,
        fontsize=8,
    )
    axes.tick_params(colors=_TEXT, which="both", labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=len(_COLOURS), frameon=False, labelcolor=_TEXT, fontsize=8
    )
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
