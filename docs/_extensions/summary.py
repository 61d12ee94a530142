"""The directive ``summary``: a table of the public members of a class or a module, with the first lines of their docstrings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.ext.autosummary import Autosummary


def members(name: str) -> list[str]:
    """Return the full names of the public members of a class, in the order of the source."""
    module, _, attribute = name.rpartition(".")
    owner = getattr(import_module(module), attribute)
    return [f"~{name}.{key}" for key, value in vars(owner).items() if key[0] != "_" and value.__doc__]


class Summary(Autosummary):
    """The directive. Its argument is the name of a class."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        self.options["nosignatures"] = None
        self.content = StringList(members(self.arguments[0]))
        return list(super().run())


def setup(app: Any) -> dict[str, Any]:
    """Add the directive."""
    app.setup_extension("sphinx.ext.autosummary")
    app.add_directive("summary", Summary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
