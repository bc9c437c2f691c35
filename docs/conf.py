"""How Sphinx builds this documentation: ``make docs``, offline, every warning an error."""

import json
import os
import re
from typing import Any

import scalefp

project = "scalefp"
author = copyright = "scalefp developers"
version = release = scalefp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Notebooks reach the parser as the Markdown that `notebook_as_markdown` makes of them.
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


def notebook_as_markdown(app: Any, name: str, source: list[str]) -> None:
    """Replace a notebook's JSON by Markdown before it is parsed."""
    if os.fspath(app.env.doc2path(name)).endswith(".ipynb"):
        cells = json.loads(source[0])["cells"]
        source[0] = "\n\n".join(map(cell_as_markdown, cells))


# What Python itself writes into the docstrings of a named tuple.
AUTOMATIC = ("Alias for field number", "Create new instance of")


def tidy(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Absolute values in docstrings, |x|, are no substitutions of reStructuredText."""
    lines[:] = [line for line in lines if not line.startswith(AUTOMATIC)]
    lines[:] = [re.sub(r"(``.*?``)|\|", lambda found: found[1] or r"\|", line) for line in lines]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", tidy)
    app.connect("source-read", notebook_as_markdown)
