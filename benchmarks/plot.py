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
    """Draw the chart as SVG, for light and dark pages, and a second chart for narrow screens next to it.

    Args:
        path: The file to write; the other one has ``-narrow`` at the end of its name.
        table: The medians, by row and peer.
        machine: What the figures depend on, for the caption.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "anysched"  # the same figures make the same file
    _draw(path, table, machine, narrow=False)
    _draw(path.with_stem(f"{path.stem}-narrow"), table, machine, narrow=True)


def _draw(path: Path, table: Mapping[str, Figures], machine: Mapping[str, Any], *, narrow: bool) -> None:
    """Draw a chart. A narrow one is shown at its own size: the names of the rows are above their bars."""
    from matplotlib import pyplot as plt

    names = [name for name in _ROWS if table.get(name, {}).get("anysched")]
    size = (3.7, 1.15 * len(names) + 1.6) if narrow else (9, 0.9 * len(names) + 1.2)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    height = (0.7 if narrow else 0.8) / len(_COLOURS)
    for position, (peer, colour) in enumerate(_COLOURS.items()):
        bars = [
            (index + (position - (len(_COLOURS) - 1) / 2) * height, table[name][peer] / table[name]["anysched"])
            for index, name in enumerate(names)
            # A hold-up is for all IDs together, so it cannot be compared with that of fewer IDs.
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
    if narrow:  # it would strike through the names
        for index in range(len(names)):
            axes.vlines(1, index - 0.37, index + 0.37, color=_TEXT, linewidth=1)
    else:
        axes.axvline(1, color=_TEXT, linewidth=1)
    axes.set_xscale("log")
    if narrow:
        axes.set_yticks([])
        for index, name in enumerate(names):
            text = axes.text(
                0, index - 0.46, _ROWS[name], transform=axes.get_yaxis_transform(), color=_TEXT, fontsize=9
            )
            text.set_in_layout(False)  # the bars are below it, not next to it
    else:
        axes.set_yticks(range(len(names)), [_ROWS[name] for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.15 if narrow else 0.08)
    about = [
        "times as much as anysched with coroutines",
        "(right of the line: anysched takes less)",
        f"asyncio, Python {machine['python']}",
        f"{machine['processor']}, {machine['cores']} cores, {machine['date']}",
    ]
    caption = "\n".join(about) if narrow else f"{about[0]} {about[1]}\n{about[2]}, {about[3]}"
    axes.set_xlabel(caption, color=_TEXT, fontsize=8)
    axes.tick_params(colors=_TEXT, which="both", labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    columns, middle = (2, 0.5) if narrow else (len(_COLOURS), 0.4)
    axes.legend(
        loc="lower center", bbox_to_anchor=(middle, 1.0), ncols=columns, frameon=False, labelcolor=_TEXT, fontsize=8
    )
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
