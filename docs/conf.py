"""The documentation site: `tox run -e docs` builds it, warnings are errors."""

from importlib.metadata import version as installed_version

project = "pytest-touchstone"
author = "The pytest-touchstone authors"
version = release = installed_version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings write names between single backticks, as Markdown does

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = project
