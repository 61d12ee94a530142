"""The directive ``summary``: a table of the public members of a class, with the first sentences of their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def rows(name: str) -> Iterator[tuple[str, str]]:
    """Yield the public members of a class with what they do, in the order of the source."""
    module, _, attribute = name.rpartition(".")
    for key, value in vars(getattr(import_module(module), attribute)).items():
        text = inspect.getdoc(value)
        if key[0] != "_" and text:
            paragraph = " ".join(text.partition("\n\n")[0].split())
            label = f"{key}()" if callable(value) or isinstance(value, (classmethod, staticmethod)) else key
            yield f":py:obj:`{label} <{name}.{key}>`", re.split(r"(?<=\.) |; see ", paragraph)[0].rstrip(".") + "."


class Summary(SphinxDirective):
    """The directive. Its argument is the name of a class."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        name = self.arguments[0]
        lines = [".. list-table::", "   :class: summary", "   :widths: auto", ""]
        for member, text in rows(name):
            lines += [f"   * - {member}", f"     - {text}"]
        # Docstrings name other members as they do inside of the class.
        context, scope = self.env.ref_context, dict(self.env.ref_context)
        context["py:module"], _, context["py:class"] = name.rpartition(".")
        try:
            return self.parse_text_to_nodes("\n".join(lines))
        finally:
            context.clear()
            context.update(scope)


def setup(app: Any) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("summary", Summary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
