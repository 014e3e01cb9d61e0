"""The report of a run: one self-contained HTML page, with the same tables as Markdown and every figure as JSON beside it."""

from .about import About
from .writing import render, write_report

__all__ = ["About", "render", "write_report"]
