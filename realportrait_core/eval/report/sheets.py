"""What stands in the tables of a report: sheets as in the paper, a line for each row, and one with every metric for each table."""

from collections import Counter
from dataclasses import dataclass, replace

from ..columns import Column
from ..rows import REALPORTRAIT
from .cells import NONE, Cell, best_rows, cell, column_of, kind, number, used_text
from .statistics import Table, in_order

ALL = "all"  # of a cell where nothing is missing, beside rows where something is

# The paper's own figures, by its networks on its test sets: a scale for the reader, not a comparison.
PAPER_1 = {
    "Face Vid2vid": {"psnr_db": 30.653, "ssim": 0.773, "lpips": 0.093, "fid": 83.507},
    "LivePortrait": {"psnr_db": 32.154, "ssim": 0.821, "lpips": 0.071, "fid": 57.896},
    "X-Portrait": {"psnr_db": 31.962, "ssim": 0.826, "lpips": 0.074, "fid": 56.547},
    "RealPortrait": {"psnr_db": 32.213, "ssim": 0.831, "lpips": 0.064, "fid": 55.346},
}
PAPER_2 = {
    "Face Vid2vid": {"identity_similarity": 0.592, "expression_l1": 0.785, "pose_l1": 0.058},
    "LivePortrait": {"identity_similarity": 0.664, "expression_l1": 0.685, "pose_l1": 0.034},
    "X-Portrait": {"identity_similarity": 0.654, "expression_l1": 0.695, "pose_l1": 0.036},
    "RealPortrait": {"identity_similarity": 0.673, "expression_l1": 0.664, "pose_l1": 0.031},
}


@dataclass(frozen=True)
class Plan:
    """A sheet before the figures are known."""

    title: str
    caption: str
    tables: tuple[str, ...]
    metrics: tuple[str, ...]  # always there, be the column empty
    more: tuple[str, ...] = ()  # there if any row has them
    paper: dict[str, dict[str, float]] | None = None


PLANS = (
    Plan(
        "Table 1. Self-reenactment",
        "Distance to the truth, the layout of the paper's Table 1, and beside it what needs no further weights.",
        ("self", "clips", "photos"),
        ("psnr_db", "ssim", "lpips", "fid"),
        ("st_lpips", "frechet_stlpips", "sharp"),
        PAPER_1,
    ),
    Plan(
        "Table 2. Cross-reenactment",
        "Identity against the portrait; expression and pose against the driving video, or the exact truth of rendered heads.",
        ("cross", "clips_cross", "photos_cross"),
        ("identity_similarity", "expression_l1", "pose_l1"),
        ("smirk_expression_l1", "smirk_pose_l1", "expression_change_l1", "pose_change_l1"),
        PAPER_2,
    ),
    Plan(
        "Temporal quality",
        "Flicker, jitter of keypoints, and seams where two clips of the network meet; beside the truth's own.",
        ("self", "clips", "clips_cross", "long"),
        ("flicker_255", "jitter_px"),
        ("seam", "keypoint_seam"),
    ),
)


@dataclass(frozen=True)
class Line:
    """A row of a sheet: a method."""

    name: str
    kind: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """The lines of one table."""

    title: str
    note: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Sheet:
    """A table of the report as it is shown, methods below one another."""

    title: str
    caption: str
    columns: tuple[Column, ...]
    spreads: tuple[int, ...]  # characters of the longest spread in each column: room that aligns the values
    groups: tuple[Group, ...]
    missing: tuple[tuple[str, str], ...]  # title of an empty column, and how to get what it needs


@dataclass(frozen=True)
class MetricLine:
    """A metric over all rows of a table."""

    metric: str
    column: Column
    used: str  # of most rows, as Cell.used; "" where all differ, or nothing is missing
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Details:
    """Every metric of a table, metrics below one another."""

    table: Table
    note: str
    rows: tuple[tuple[str, str], ...]  # name and kind
    lines: tuple[MetricLine, ...]


def size_of(table: Table) -> str:
    return f"{table.cases} {'case' if table.cases == 1 else 'cases'}, {table.frames} frames"


def line_of(table: Table, metric: str) -> MetricLine:
    """A metric of every row, the best marked. What most rows lack alike is said once."""
    column = column_of(metric)
    figures = {row: found[metric] for row, found in table.rows.items() if metric in found}
    best = best_rows(figures, column)
    cells = tuple(cell(figures.get(row), column, row in best) for row in table.rows)
    lacking = Counter(used_text(figure) for figure in figures.values()).most_common(1)
    if not lacking or lacking[0][1] < 2:
        return MetricLine(metric, column, "", cells)
    used = lacking[0][0]
    return MetricLine(metric, column, used, tuple(replace(entry, used=beside(entry, used)) for entry in cells))


def beside(entry: Cell, used: str) -> str:
    """What a cell says of its own, where `used` is said of most rows."""
    if entry.used == used or entry.value == NONE and not entry.used:
        return ""
    return entry.used or ALL


def group_of(table: Table, metrics: tuple[str, ...], note: str) -> Group | None:
    """None where no row of the table has any of the metrics."""
    columns = [line_of(table, metric) for metric in metrics]
    lines = tuple(
        Line(row, kind(row), tuple(column.cells[k] for column in columns))
        for k, (row, figures) in enumerate(table.rows.items())
        if any(metric in figures for metric in metrics)
    )
    used = "; ".join(f"{column.column.title} {column.used}" for column in columns if column.used)
    said = " ".join(part for part in (f"{size_of(table)}.", note, f"Used: {used}." if used else "") if part)
    return Group(table.name, said, lines) if lines else None


def paper_group(paper: dict[str, dict[str, float]], metrics: tuple[str, ...]) -> Group:
    lines = tuple(
        Line(row, "paper", tuple(Cell(number(figures.get(metric), 3)) for metric in metrics)) for row, figures in paper.items()
    )
    return Group("as printed in the paper", "Other networks, sizes and test sets: a scale, not a comparison.", lines)


def sheet_of(plan: Plan, tables: dict[str, Table], notes: dict[str, str], missing: dict[str, str]) -> Sheet | None:
    """None where the run has nothing for it. Without any figure it says what they need, beside the paper's."""
    chosen = [tables[name] for name in plan.tables if name in tables]
    have = {metric for table in chosen for metric in table.metrics}
    metrics = (*plan.metrics, *(metric for metric in plan.more if metric in have))
    groups = [group for table in chosen if (group := group_of(table, metrics, notes.get(table.name, "")))]
    lacking = tuple((column_of(metric).title, missing[metric]) for metric in metrics if metric in missing and metric not in have)
    if not groups and not (chosen and lacking and plan.paper):
        return None
    if plan.paper is not None:
        groups.append(paper_group(plan.paper, metrics))
    by_column = zip(*(line.cells for group in groups for line in group.lines))
    spreads = tuple(max(len(entry.spread) for entry in cells) for cells in by_column)
    return Sheet(plan.title, plan.caption, tuple(column_of(metric) for metric in metrics), spreads, tuple(groups), lacking)


def sheets(tables: list[Table], notes: dict[str, str], missing: dict[str, str]) -> list[Sheet]:
    """notes: table -> what is compared in it; missing: metric -> how to get its weights."""
    by_name = {table.name: table for table in tables}
    found = (sheet_of(plan, by_name, notes, missing) for plan in PLANS)
    return [sheet for sheet in found if sheet is not None]


def details(table: Table, note: str) -> Details:
    """RealPortrait first: the other rows' differences are to it."""
    table = replace(table, rows={row: table.rows[row] for row in in_order(table.rows, (REALPORTRAIT,))})
    lines = tuple(line_of(table, metric) for metric in table.metrics)
    return Details(table, note, tuple((row, kind(row)) for row in table.rows), lines)
