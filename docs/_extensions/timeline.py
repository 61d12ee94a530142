"""The directive ``timeline``: draws what happens to tasks in the course of time.

Its lines read, one for each::

    tea: pending 0-4, running 4-6, finished 6
    5: cancel("tea")

The first is a row: the states of a task with their times, and at the end the mark of its outcome. The second is
something that happens at a time. The title stands below the drawing. The option ``ticks`` says what stands on the axis:
``0=now, 30=day 30``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

# A phone shows the whole width without scrolling, at a size that can be read.
LEFT, WIDTH, RIGHT = 68, 292, 72
ROW, BAR = 28, 19
EVENT = 18
CODE = 6.3  # the width of a letter of code

STATES = {"pending", "running", "cancelling", "other"}
ENDS = {"finished", "failed", "cancelled", "closed", "refused"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """The content of a drawing.

    Attributes:
        rows: The names of the rows; for each the bars, as text, state, beginning and end, and the marks.
        events: What happens, and when.
        ticks: What stands on the axis, and where.
    """

    rows: list[tuple[str, list[tuple[str, str, float, float]], list[tuple[str, float]]]]
    events: list[tuple[float, str]]
    ticks: list[tuple[float, str]]


def parse(lines: list[str], ticks: str) -> Drawing:
    """Read the lines of the directive.

    Raises:
        ValueError: for a line that is none.
    """
    drawing = Drawing([], [], [])
    for line in filter(None, map(str.strip, lines)):
        name, separator, rest = line.partition(":")
        if not separator:
            raise ValueError(f"neither a row nor an event: {line!r}")
        if re.fullmatch(r"[\d.]+", name):
            drawing.events.append((float(name), rest.strip()))
            continue
        bars: list[tuple[str, str, float, float]] = []
        marks: list[tuple[str, float]] = []
        for part in rest.split(","):
            match = re.fullmatch(r"(\w+)(?: \"([^\"]*)\")? ([\d.]+)(?:-([\d.]+))?", part.strip())
            if match is None or match[1] not in STATES | ENDS:
                raise ValueError(f"neither a state nor an end: {part.strip()!r}")
            if match[4]:
                bars.append((match[1] if match[2] is None else match[2], match[1], float(match[3]), float(match[4])))
            else:
                marks.append((match[1], float(match[3])))
        drawing.rows.append((name, bars, marks))
    for tick in filter(None, ticks.split(",")):
        at, _, text = tick.strip().partition("=")
        drawing.ticks.append((float(at), text or at))
    return drawing


def draw(drawing: Drawing, title: str) -> str:
    """Return the drawing as SVG, coloured by the style sheet of the site.

    Raises:
        ValueError: if the text of an event is too long.
    """
    last = max(
        [at for at, _ in drawing.events + drawing.ticks]
        + [end for _, bars, _ in drawing.rows for *_, end in bars]
        + [at for _, _, marks in drawing.rows for _, at in marks]
    )

    def x(at: float) -> float:
        return round(LEFT + WIDTH * at / last, 1)

    top = 8 + EVENT * len(drawing.events)
    bottom = top + ROW * len(drawing.rows)
    lines: list[str] = []
    parts: list[str] = []
    for number, (at, text) in enumerate(drawing.events):
        y = 16 + EVENT * number
        # Right of its moment, or as far to the left as it takes; the text wipes out the lines that it crosses.
        wide = len(text) * CODE
        if wide > LEFT + WIDTH + RIGHT - 8:
            raise ValueError(f"too long to be drawn: {text!r}")
        start = min(x(at) + 5, LEFT + WIDTH + RIGHT - 4 - wide)
        lines.append(f'<line class="event" x1="{x(at)}" y1="{y + 4}" x2="{x(at)}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="code" x="{start:.1f}" y="{y}">{escape(text)}</text>')
    for number, (name, bars, marks) in enumerate(drawing.rows):
        y = top + ROW * number
        middle = y + ROW / 2
        parts.append(f'<text class="name" x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
        for text, state, begin, end in bars:
            wide = x(end) - x(begin)
            parts.append(
                f'<rect class="{state}" x="{x(begin)}" y="{y + (ROW - BAR) / 2}" width="{wide:.1f}" height="{BAR}" rx="4"/>'
            )
            if len(text) * 5.6 + 6 <= wide:
                parts.append(
                    f'<text class="on-{state}" x="{x(begin) + wide / 2:.1f}" y="{middle + 4}" text-anchor="middle">'
                    f"{escape(text)}</text>"
                )
        for end_state, at in marks:
            parts += [
                f'<circle class="{end_state}" cx="{x(at)}" cy="{middle}" r="6"/>',
                f'<path class="sign" d="{_SIGNS[end_state]}" transform="translate({x(at)} {middle})"/>',
                f'<text class="state" x="{x(at) + 10}" y="{middle + 4}">{end_state}</text>',
            ]
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{bottom + 4}" x2="{LEFT + WIDTH + 8}" y2="{bottom + 4}"/>')
    for at, text in drawing.ticks:
        parts += [
            f'<line class="axis" x1="{x(at)}" y1="{bottom + 4}" x2="{x(at)}" y2="{bottom + 9}"/>',
            f'<text class="tick" x="{x(at)}" y="{bottom + 22}" text-anchor="middle">{escape(text)}</text>',
        ]
    height = bottom + (28 if drawing.ticks else 12)
    return (
        f'<svg viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" role="img" aria-label="{escape(title)}">'
        + "".join(lines + parts)
        + "</svg>"
    )


_SIGNS = {
    "finished": "M-3,0 L-1,2.5 L3,-2.5",
    "failed": "M-2.5,-2.5 L2.5,2.5 M-2.5,2.5 L2.5,-2.5",
    "cancelled": "M-3,0 L3,0",
    "closed": "M-3,0 L3,0",
    "refused": "M-2.5,2.5 L2.5,-2.5",
}


def figure(svg: str, title: str) -> nodes.Node:
    """Return a drawing with its title, for a page."""
    return nodes.raw(
        "", f'<figure class="drawing">{svg}<figcaption>{escape(title)}</figcaption></figure>', format="html"
    )


class Timeline(SphinxDirective):
    """The directive."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = {"ticks": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        title = self.arguments[0]
        try:
            svg = draw(parse(list(self.content), self.options.get("ticks", "")), title)
        except ValueError as error:
            raise self.error(str(error)) from error
        return [figure(svg, title)]


def setup(app: Any) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("timeline", Timeline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
