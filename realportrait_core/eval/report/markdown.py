"""The tables of a report as Markdown, for documentation."""

import html

from .about import About
from .cells import Cell, arrow
from .sheets import Details, Sheet, details, sheets, size_of
from .statistics import Table

HOW = (
    "A figure is the mean of the cases' means ± their standard deviation; in brackets the difference to RealPortrait with its 95 % "
    "paired bootstrap interval over the cases that both have. n: used of all cases. Best of the methods: bold."
)


def escape(text: str) -> str:
    """Of a cell: names come from files."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The first column is of words, the others are of numbers."""
    return [line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)]


def figure(cell: Cell, difference: bool = False) -> str:
    value = f"**{cell.value}**" if cell.best else cell.value
    parts = [value, cell.spread, f"({cell.used})" if cell.used else ""]
    if difference and cell.difference:
        parts.append(f"<br>{cell.difference} {cell.interval}")
    return " ".join(part for part in parts if part)


def sheet_text(sheet: Sheet) -> list[str]:
    head = ["", *(f"{escape(column.title)} {arrow(column)}".strip() for column in sheet.columns)]
    lines = [f"## {sheet.title}", "", sheet.caption, ""]
    for group in sheet.groups:
        lines += [f"**{escape(group.title)}**: {escape(group.note)}", ""]
        lines += table(head, [[escape(row.name), *map(figure, row.cells)] for row in group.lines]) + [""]
    return lines + [f"- {escape(title)}: {escape(how)}" for title, how in sheet.missing] + [""]


def details_text(shown: Details) -> list[str]:
    lines = [f"### {escape(shown.table.name)}", "", f"{size_of(shown.table)}. {escape(shown.note)}".strip(), ""]
    head = ["", *(escape(row) for row, _ in shown.rows)]
    rows = []
    for metric in shown.lines:
        unit = f", {metric.column.unit}" if metric.column.unit else ""
        used = f" ({metric.used})" if metric.used else ""
        title = f"{escape(metric.column.title)}{escape(unit)} {arrow(metric.column)}".strip() + used
        rows.append([title, *(figure(cell, True) for cell in metric.cells)])
    return [*lines, *table(head, rows), ""]


def markdown(about: About, tables: list[Table], left_out: dict[str, str]) -> str:
    """left_out: what could not be measured -> why."""
    lines = ["# Evaluation", "", *(f"- {escape(name)}: {escape(value)}" for name, value in about.settings.items()), "", HOW, ""]
    if not tables:
        lines += ["No case could be measured.", ""]
    for sheet in sheets(tables, about.tables, about.missing):
        lines += sheet_text(sheet)
    if tables:
        lines += ["## Every figure", ""]
    for entry in tables:
        lines += details_text(details(entry, about.tables.get(entry.name, "")))
    if left_out:
        lines += ["## Left out", "", *(f"- {escape(name)}: {escape(why)}" for name, why in left_out.items()), ""]
    return "\n".join(lines).rstrip() + "\n"
