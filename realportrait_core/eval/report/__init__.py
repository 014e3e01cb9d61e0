"""The report of a run: one self-contained HTML page, with the same tables as Markdown and every figure as JSON beside it."""

from .about import About
from .writing import check_packages, render, write_report

__all__ = ["About", "check_packages", "render", "write_report"]
