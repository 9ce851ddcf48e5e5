"""Sphinx configuration; warnings are errors."""

project = "Flask-Executor"
copyright = "2026, the Flask-Executor 2 contributors"
extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
exclude_patterns = ["_build"]
html_static_path = ["_static"]
