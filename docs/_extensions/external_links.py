"""Links to the documentation of Python, anyio and trio, without fetching their inventories: the build needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PYTHON = "https://docs.python.org/3/library/"
ANYIO = "https://anyio.readthedocs.io/en/stable/api.html"
TRIO = "https://trio.readthedocs.io/en/stable/reference-core.html"

# What docstrings and signatures name without its module, and where Python describes it.
_SHORT = {
    "datetime": "datetime.datetime",
    "timedelta": "datetime.timedelta",
    "Hashable": "collections.abc.Hashable",
    "Coroutine": "collections.abc.Coroutine",
    "Callable": "collections.abc.Callable",
    "Generator": "collections.abc.Generator",
    "Iterable": "collections.abc.Iterable",
    "Iterator": "collections.abc.Iterator",
    "Mapping": "collections.abc.Mapping",
    "Context": "contextvars.Context",
    "AbstractContextManager": "contextlib.AbstractContextManager",
    "TracebackType": "types.TracebackType",
    "Any": "typing.Any",
    "Literal": "typing.Literal",
    "Generic": "typing.Generic",
    "Self": "typing.Self",
    "TaskGroup": "anyio.abc.TaskGroup",
    "TaskStatus": "anyio.abc.TaskStatus",
}
_BUILT_IN_TYPES = {"int", "float", "str", "bool", "list", "tuple", "dict", "set", "frozenset", "bytes"}
_EXCEPTIONS = {"BaseException", "Exception", "ExceptionGroup", "KeyboardInterrupt", "SystemExit", "GeneratorExit"}
_MODULES = {
    "collections", "contextlib", "contextvars", "datetime", "enum", "math", "os", "pathlib", "random", "socket", "time", "types",
    "typing", "zoneinfo",
}  # fmt: skip


def address(target: str) -> str | None:
    """Return where a thing is documented, or `None` if it is not known here."""
    target = _SHORT.get(target, target)
    module = target.rpartition(".")[0]
    if not module:
        if target in _MODULES:
            return f"{PYTHON}{target}.html#module-{target}"
        if target in _BUILT_IN_TYPES:
            return f"{PYTHON}stdtypes.html#{target}"
        if target in {"None", "True", "False"}:
            return f"{PYTHON}constants.html#{target}"
        if target == "object":
            return f"{PYTHON}functions.html#object"
        if target in _EXCEPTIONS or target.endswith("Error"):
            return f"{PYTHON}exceptions.html#{target}"
        return None
    root = module.partition(".")[0]
    if root == "anyio":
        return f"{ANYIO}#{target}"
    if root == "trio":
        return f"{TRIO}#{target}"
    if root == "asyncio":
        page = {
            "Task": "asyncio-task",
            "create_task": "asyncio-task",
            "current_task": "asyncio-task",
            "to_thread": "asyncio-task",
            "CancelledError": "asyncio-exceptions",
            "AbstractEventLoop": "asyncio-eventloop",
            "run": "asyncio-runner",
        }.get(target.split(".")[1])
        return page and f"{PYTHON}{page}.html#{target}"
    return f"{PYTHON}{module}.html#{target}" if root in _MODULES else None


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contents: nodes.TextElement
) -> nodes.reference | None:
    """Resolve a reference that leads out of the site."""
    url = address(node["reftarget"]) if node.get("refdomain") == "py" else None
    return None if url is None else nodes.reference("", "", contents, internal=False, refuri=url)


def setup(app: Sphinx) -> dict[str, Any]:
    """Have Sphinx ask here for what it does not find."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
