"""How the site is built: ``nox -s docs``."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import tomllib
from importlib import import_module

# Annotations that name asyncio are shown as they are written. Evaluated, they say where asyncio keeps its classes.
del import_module("anysched._core.create_task").asyncio

_about = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]

project = _about["name"]
author = copyright = _about["authors"][0]["name"]  # noqa: A001
version = release = _about["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxext.opengraph",
    "external_links",
    "one_signature",
    "pages",
    "summary",
    "module_graph",
    "timeline",
]
exclude_patterns = ["_*"]
nitpicky = True

# Docstrings name things in single backticks, which is a reference in Sphinx's own markup.
default_role = "py:obj"
add_module_names = False
toc_object_entries_show_parents = "hide"
autodoc_typehints = "signature"
autodoc_type_aliases = {
    "SchedulerState": "SchedulerState",
    "ConflictPolicy": "ConflictPolicy",
    "MissedPolicy": "MissedPolicy",
    "RunStatus": "RunStatus",
}
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 110
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r"ASGIApp|opentelemetry\..*|starlette\..*|T|T_co|Ts|WhenT|_Status|Target|\*Ts|AbstractEventLoop|anysched\._.*",
    ),
    ("py:.*", r"anysched\.durable\.(scheduler\.HandlerT|recurrence\.Calendar|shared\.News|postgres\.R)|PostgresStore"),
]

# Programs are copied, what they print is not.
copybutton_selector = "div.highlight:not(.highlight-text div) pre"
copybutton_prompt_text = "$ "

# Where the site is served, if that is known: Read the Docs says it.
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")
ogp_site_url = html_baseurl
ogp_social_cards = {"enable": False}
ogp_use_first_image = False

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"{project} {version}"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
