"""One signature for each function: the overloads, which are for type checkers, say the same many times over."""

from __future__ import annotations

import re
from typing import Any

from sphinx.pycode import ModuleAnalyzer

# The type of the target in the implementation, which accepts both overloads.
_TARGET = re.compile(r"(coroutine|func): [^,=]*Coroutine\[.*?\](?:\])?(?=, [*\w]+:)")


def shorten(*event: Any) -> tuple[str | None, str | None]:
    """Return the signature, with the target as ``Coroutine | Callable``."""
    *_, arguments, result = event
    return arguments and _TARGET.sub(r"\1: Coroutine | Callable", arguments), result


def setup(app: Any) -> dict[str, Any]:
    """Have autodoc not see overloads."""
    analyze = ModuleAnalyzer.analyze

    def analyze_without_overloads(self: ModuleAnalyzer) -> None:
        analyze(self)
        self.overloads.clear()

    ModuleAnalyzer.analyze = analyze_without_overloads  # type: ignore[method-assign]
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
