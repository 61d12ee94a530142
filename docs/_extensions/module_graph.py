"""The directive ``module-graph``: draws the modules of the package and their imports, as they are in the source.

An import that follows from others is not drawn. The modules of the core are drawn one by one, other packages as one box.
"""

from __future__ import annotations

import ast
import re
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from timeline import figure

SOURCE = Path(__file__).parents[2] / "src" / "anysched"
WIDTH, HEIGHT, BOX, GAP = 560, 62, 28, 8

TITLE = "The modules: an arrow leads from a module to one that it imports; those that follow from others are left out"


def box(module: str) -> str:
    """Return the box in which a module is drawn: its own, or that of its package."""
    first, *rest = module.split(".")
    return f"{first}.{rest[0]}" if first == "_core" and rest and rest[0] != "__init__" else first


def label(name: str) -> str:
    """Return the text of a box."""
    return name.removeprefix("_core.")


def is_module(name: str) -> bool:
    """Return whether the package has a module or package of this name at its top."""
    return (SOURCE / f"{name}.py").exists() or (SOURCE / name).is_dir()


def imports() -> tuple[dict[str, set[str]], dict[str, str]]:
    """Return the boxes that each box imports, and the first line of its docstring."""
    edges: dict[str, set[str]] = {}
    about: dict[str, str] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        tree = ast.parse(path.read_text("utf-8"))
        here = box(module)
        if module in (here, f"{here}.__init__"):
            about[here] = (ast.get_docstring(tree) or "").partition("\n")[0]
        found = edges.setdefault(here, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("anysched")):
                base = ["anysched", *module.split(".")][: -node.level] if node.level else []
                target = ".".join([*base, *([node.module] if node.module else [])]).split(".")[1:]
                if target:
                    found.add(box(".".join(target)))
                else:  # otherwise it is a public name
                    found |= {box(alias.name) if is_module(alias.name) else "__init__" for alias in node.names}
        found.discard(here)
    return edges, about


def reduce(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out the imports that are implied by others."""

    def reached(start: str) -> set[str]:
        return set().union(*({other} | reached(other) for other in edges[start]))

    return {
        name: {other for other in others if not any(other in reached(third) for third in others - {other})}
        for name, others in edges.items()
    }


def levels(edges: dict[str, set[str]]) -> dict[str, int]:
    """Return how high each box is: as the chain of imports below it asks, but what imports nothing stands near."""

    def depth(name: str) -> int:
        return max((1 + depth(other) for other in edges[name]), default=0)

    found = {name: depth(name) for name in edges}
    for name, imported in edges.items():
        above = [found[other] for other in edges if name in edges[other]]
        if not imported and above:
            found[name] = min(above) - 1
    return found


def arrange(edges: dict[str, set[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows, from the lowest, and the arrows, each as the list of names that it passes.

    Where an arrow crosses a row, it has a separate place there: a name with a ``>``.
    """
    level = levels(edges)
    rows: list[list[str]] = [[] for _ in range(1 + max(level.values()))]
    for name in sorted(edges):
        rows[level[name]].append(name)
    arrows = []
    for name in sorted(edges):
        for other in sorted(edges[name]):
            between = [f"{name}>{other}>{row}" for row in range(level[name] - 1, level[other], -1)]
            for place in between:
                rows[int(place.rpartition(">")[2])].append(place)
            arrows.append([name, *between, other])
    near: dict[str, list[str]] = {name: [] for row in rows for name in row}
    for arrow in arrows:
        for upper, lower in pairwise(arrow):
            near[upper].append(lower)
            near[lower].append(upper)
    # Each stands as near as can be to what it is bound to, above and below.
    places = {name: (index + 1) / (len(row) + 1) for row in rows for index, name in enumerate(row)}
    for _ in range(12):
        for row in rows:
            row.sort(key=lambda name: sum(places[other] for other in near[name]) / (len(near[name]) or 1))
            places |= {name: (index + 1) / (len(row) + 1) for index, name in enumerate(row)}
    return rows, arrows


def draw(edges: dict[str, set[str]]) -> str:
    """Return the drawing as SVG."""
    rows, arrows = arrange(edges)
    places: dict[str, tuple[float, float]] = {}
    boxes: list[str] = []
    for number, row in enumerate(reversed(rows)):
        y = 6 + number * HEIGHT
        wide = {name: 6 if ">" in name else len(label(name)) * 7 + 18 for name in row}
        space = (WIDTH - sum(wide.values())) / (len(row) + 1)
        assert space >= GAP, f"too many boxes in one row: {row}"
        x = space
        for name in row:
            middle = x + wide[name] / 2
            places[name] = (middle, y)
            if ">" not in name:
                kind = "public" if name.startswith("__") or not name.startswith("_") else "private"
                boxes.append(
                    f'<rect class="module {kind}" x="{x:.1f}" y="{y}" width="{wide[name]:.1f}" height="{BOX}" rx="5"/>'
                    f'<text class="code" x="{middle:.1f}" y="{y + 18}" text-anchor="middle">{escape(label(name))}</text>'
                )
            x += wide[name] + space
    lines = []
    for arrow in arrows:
        (x, y), *rest = (places[name] for name in arrow)
        path = f"M{x:.1f},{y + BOX}"
        y += BOX
        for x2, y2 in rest:
            # Leaving and arriving upright, an arrow passes between the boxes.
            path += f" C{x:.1f},{y + 24} {x2:.1f},{y2 - 24} {x2:.1f},{y2 - 1}"
            if (x2, y2) != rest[-1]:
                path += f" L{x2:.1f},{y2 + BOX}"
            x, y = x2, y2 + BOX
        lines.append(f'<path class="import" d="{path}" marker-end="url(#tip)"/>')
    height = 6 + HEIGHT * len(rows) - (HEIGHT - BOX) + 6
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0,0 L8,4 L0,8 z"/></marker></defs>'
    )
    return (
        f'<svg class="wide" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{TITLE}">'
        f"{tip}{''.join(lines)}{''.join(boxes)}</svg>"
    )


def as_html(text: str) -> str:
    """Return the markup of a docstring as HTML, as far as first lines have any."""
    return re.sub(r"`+([^`]+)`+", r"<code>\1</code>", escape(text))


class ModuleGraph(SphinxDirective):
    """The directive: the drawing, and the first line of each module."""

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        for path in SOURCE.rglob("*.py"):
            self.env.note_dependency(str(path))
        edges, about = imports()
        rows, _ = arrange(reduce(edges))
        listing = "".join(
            f"<dt><code>{escape(name)}</code></dt><dd>{as_html(about[name])}</dd>"
            for row in reversed(rows)
            for name in row
            if ">" not in name
        )
        return [figure(draw(reduce(edges)), TITLE), nodes.raw("", f'<dl class="modules">{listing}</dl>', format="html")]


def setup(app: Any) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("module-graph", ModuleGraph)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
