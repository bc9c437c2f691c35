"""How Sphinx builds this documentation: ``make docs``, offline, every warning an error."""

import inspect
import json
import os
import re
from importlib import import_module
from typing import Any

import scalefp

project = "scalefp"
author = copyright = "scalefp developers"
version = release = scalefp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Notebooks reach the parser as the Markdown that `as_markdown` makes of them.
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
exclude_patterns = ["_build"]
default_role = "code"
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"scalefp {release}"
html_copy_source = False
html_show_sphinx = False

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autoclass_content = "both"
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def cell_as_markdown(cell: dict[str, Any]) -> str:
    """One cell of a notebook: text as it is, code and what it printed as blocks."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            parts.append(f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">')
        else:
            text = "".join(output.get("text", data.get("text/plain", "")))
            parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def options_of(found: re.Match[str]) -> str:
    """The source of a class of options, without its methods."""
    module, name = found[1].rsplit(".", 1)
    source = inspect.getsource(getattr(import_module(module), name))
    fields = re.split(r"\n    (?:@\w+\n    )?def ", source)[0]
    return f"```python\n{fields.rstrip()}\n```"


def as_markdown(app: Any, name: str, source: list[str]) -> None:
    """What the parser reads of a page: a notebook's cells, and classes of options filled in."""
    if os.fspath(app.env.doc2path(name)).endswith(".ipynb"):
        cells = json.loads(source[0])["cells"]
        source[0] = "\n\n".join(map(cell_as_markdown, cells))
    source[0] = re.sub(r"```\{options\} (\S+)\n```", options_of, source[0])


# What Python itself writes into the docstrings of a named tuple.
AUTOMATIC = ("Alias for field number", "Create new instance of")


def tidy(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Absolute values in docstrings, |x|, are no substitutions of reStructuredText."""
    lines[:] = [line for line in lines if not line.startswith(AUTOMATIC)]
    lines[:] = [re.sub(r"(``.*?``)|\|", lambda found: found[1] or r"\|", line) for line in lines]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", tidy)
    app.connect("source-read", as_markdown)
