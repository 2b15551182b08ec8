"""Sphinx: how `make docs` builds the site. Nothing is fetched, and no page asks another server."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import millie

project = "millie"
author = "The millie authors"
project_copyright = "The millie authors, Apache-2.0"
version = release = millie.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_reference"]
exclude_patterns = ["_*", "**/_*"]
nitpicky = True
nitpick_ignore_regex = [
    # Other projects' types (their own sites would have to be asked), and what stands in our own
    # docstrings beside the public interface and is found by `help()`.
    ("py:.*", r"(numpy|np|pd|pandas|pathlib|matplotlib|collections|typing|pydantic|os|torch)\b.*"),
    ("py:.*", r"(NDArray|Path|Figure|PathLike|Progress|Literal|Annotated|Any|optional|ABC)\b.*"),
    ("py:.*", r"millie\.(readers|outputs|evaluation|learning|models|bags|engines|types|files)\..*"),
    ("py:.*", r"millie\.(pipeline|statistics|config)\..*"),
    ("py:class", r"[A-Z]\w+"),  # types of our own that signatures name and nobody has to make
]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
python_use_unqualified_type_names = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 900  # seconds a cell may take on a busy machine
nb_merge_streams = True

smartquotes = False  # "--root" is an option, not a dash

html_theme = "furo"
html_title = f"millie {release}"
html_static_path = ["_static"]
html_css_files = ["millie.css"]
html_js_files = ["millie.js"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "announcement": "For research use only. Not for use in diagnostic procedures.",
    "navigation_with_keys": False,
}
html_last_updated_fmt = None
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
