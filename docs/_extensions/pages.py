"""The directive ``pages``: a ``toctree`` of the pages that are there, for sections to which pages are added."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.directives.other import TocTree
from sphinx.util.matching import patfilter


class Pages(TocTree):
    """The directive. Its lines are names of pages or patterns; one that matches nothing is passed over."""

    def run(self) -> list[nodes.Node]:
        """Make the ``toctree``, unless it would be empty."""
        self.options["glob"] = True
        self.content = StringList([line for line in self.content if list(patfilter(self.env.found_docs, line.strip()))])
        return super().run() if self.content else []


def setup(app: Any) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("pages", Pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
