"""Plots of a report as SVG text: drift by clips of the network, steadiness by frames, error by case.

Each is small and of one metric, so that they stand beside one another on a desk and below one another on a phone. Colours are
those of the page, by its CSS variables, and so follow its light or dark scheme.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import TYPE_CHECKING

from ...animation.clips import plan
from ...errors import InputError
from ..record import CaseRecord, Values
from ..rows import DRIVING, FACE_VID2VID, MOTION_LATENTS, REALPORTRAIT, ROUND_TRIP, STATIC, TRUTH
from ..statistics import case_figure, measured, rows_of
from .cells import REFERENCES, column_of, in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRIFT = ("identity_similarity", "st_lpips", "lpips", "psnr_db", "pose_l1", "red_255", "green_255", "blue_255", "laplacian_variance")
STEADY = ("flicker_255", "jitter_px")
LONG = "long"  # the table whose clips of the network are followed
WIDTH, HEIGHT = 3.9, 2.5  # inches of 72 px
LONGEST = 24  # characters of a case's name beside an axis
INK, FAINT = "#010101", "#020202"  # stand for the page's colours
STANDS_FOR = {INK: "var(--ink)", FAINT: "var(--rule)"}
# Row -> its colour, var(--row-0) and on; those of other methods repeat.
COLOURS = {REALPORTRAIT: 0, TRUTH: 1, DRIVING: 1, STATIC: 2, ROUND_TRIP: 3, FACE_VID2VID: 4, MOTION_LATENTS: 5}
OTHERS = range(6, 10)
ROW = "#0300{:02x}"  # stands for it


@dataclass(frozen=True)
class Plot:
    """An SVG element, and what it shows for those who do not see it."""

    title: str
    svg: str
    alt: str


def row_colours(rows: tuple[str, ...]) -> dict[str, int]:
    """Row -> number of its colour, the same in every plot and in the player."""
    others = [row for row in rows if row not in COLOURS]
    return {row: COLOURS[row] if row in COLOURS else OTHERS[others.index(row) % len(OTHERS)] for row in rows}


def draw(title: str, alt: str, paint: "Callable[[Axes], None]", height: float = HEIGHT) -> Plot:
    """InputError where matplotlib is missing."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"matplotlib cannot be imported ({error}): pip install matplotlib.") from error
    look = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,  # the same file from the same figures, and no name twice on one page
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "axes.edgecolor": FAINT,
    }
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return Plot(title, as_element(file.getvalue(), alt), alt)


def as_element(svg: str, alt: str) -> str:
    """A file of matplotlib's as an element of a page: no header, no name spaces, no size of its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 role="img" aria-hidden="true">', svg, count=1)
    for stand_in, colour in STANDS_FOR.items():
        svg = svg.replace(stand_in, colour)
    return re.sub(r"#0300([0-9a-f]{2})", lambda found: f"var(--row-{int(found[1], 16)})", svg)


def mean_over_cases(values: list[Values]) -> Values:
    """Of the same frame or clip of each case; cases may be of several lengths."""
    longest = max(map(len, values), default=0)
    there = (measured([case[i] for case in values if i < len(case)]) for i in range(longest))
    return [fmean(found) if found else None for found in there]


def clips_of(scored: int, clip_frames: int) -> list[slice]:
    """Scored frames, 0 being the video's frame 1, that each clip of the network adds."""
    return [slice(max(clip.new_frames.start - 1, 0), clip.new_frames.stop - 1) for clip in plan(scored + 1, clip_frames)]


def by_clips(record: CaseRecord, values: Values, clip_frames: int) -> Values:
    return mean_over_clips(values, clips_of(record.scored, clip_frames))


def mean_over_clips(values: Values, clips: list[slice]) -> Values:
    there = (measured(values[clip]) for clip in clips)
    return [fmean(found) if found else None for found in there]


def line_plot(
    metric: str, lines: dict[str, Values], colours: dict[str, int], x: str, joins: list[int] = [], first: int = 1
) -> Plot:
    column = column_of(metric)
    unit = f" ({column.unit})" if column.unit else ""

    def paint(axes: "Axes") -> None:
        for at in joins:
            axes.axvline(at - 0.5, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
        for row, values in lines.items():
            at = [i for i, value in enumerate(values) if value is not None]
            style = (0, (4, 2)) if row in REFERENCES else "solid"
            axes.plot(
                [first + i for i in at],
                [values[i] for i in at],
                color=ROW.format(colours[row]),
                linewidth=2 if row == REALPORTRAIT else 1.1,
                linestyle=style,
                marker="o" if len(values) <= 12 else None,
                markersize=3,
            )
        axes.set_xlabel(x)
        axes.margins(x=0.02)
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    title = f"{column.title}{unit}"
    said = "; ".join(f"{row}: {ends(values, column.digits)}" for row, values in lines.items())
    return draw(title, f"{title} by {x}, {in_words(column)}. {said}.", paint)


def ends(values: Values, digits: int) -> str:
    """The first and the last value, in words."""
    there = measured(values)
    return f"{there[0]:.{digits}f} at first, {there[-1]:.{digits}f} at last" if there else "nothing measured"


def lines_of(records: list[CaseRecord], metric: str, follow: "Callable[[CaseRecord, Values], Values]") -> dict[str, Values]:
    """Row -> the metric's mean over the cases; rows without a value are left out."""
    found = {}
    for row in rows_of(records):
        having = [record for record in records if metric in record.frames.get(row, {})]
        if measured(values := mean_over_cases([follow(record, record.frames[row][metric]) for record in having])):
            found[row] = values
    return found


def drift_plots(records: list[CaseRecord], colours: dict[str, int], clip_frames: int) -> list[Plot]:
    """A line for each row over the clips of the network of table LONG; without that table none."""
    chosen = [record for record in records if record.table == LONG]
    plots = []
    for metric in DRIFT:
        lines = lines_of(chosen, metric, lambda record, values: by_clips(record, values, clip_frames))
        if any(len(measured(values)) > 1 for values in lines.values()):
            plots.append(line_plot(metric, lines, colours, "clip of the network"))
    return plots


def steady_plots(records: list[CaseRecord], colours: dict[str, int], clip_frames: int) -> list[Plot]:
    """Flicker and jitter of every frame, with the joins of the network's clips, of the table with the longest videos."""
    if not records:
        return []
    longest = max(records, key=lambda record: record.scored)
    chosen = [record for record in records if record.table == longest.table]
    joins = [clip.start + 1 for clip in clips_of(longest.scored, clip_frames)[1:]]
    plots = []
    for metric in STEADY:
        if lines := lines_of(chosen, metric, lambda record, values: values):
            plots.append(line_plot(metric, lines, colours, "frame", joins))
    return plots


def error_plot(records: list[CaseRecord], metric: str, colours: dict[str, int], name: str) -> Plot:
    """Every case as a line, in the order given: RealPortrait with the middle 80 % of its frames, the other rows as dots."""
    column = column_of(metric)

    def paint(axes: "Axes") -> None:
        for y, record in enumerate(records):
            axes.axhline(y, color=FAINT, linewidth=0.5)
            for row in record.frames:
                value = case_figure(record, row, metric)
                if value is None or row == TRUTH:
                    continue
                colour, ours = ROW.format(colours[row]), row == REALPORTRAIT
                if ours and (span := middle(record.frames[row].get(metric, []))):
                    axes.plot(span, (y, y), color=colour, linewidth=1.6, solid_capstyle="butt")
                filled = "none" if row in REFERENCES else "full"
                axes.plot([value], [y], "o", color=colour, markersize=5 if ours else 3.5, fillstyle=filled)
        axes.set_yticks(range(len(records)), [short(record.name) for record in records])
        axes.tick_params("y", length=0)
        axes.set_ylim(len(records) - 0.5, -0.5)
        axes.set_xlabel(f"{column.title}{f' ({column.unit})' if column.unit else ''}")

    alt = f"{column.title} of every case of {name}, {in_words(column)}, worst case of {REALPORTRAIT} first: {records[0].name}."
    return draw(f"{name}: {column.title}", alt, paint, 0.9 + 0.19 * max(len(records), 3))


def middle(values: Values) -> tuple[float, float] | None:
    """From the tenth to the ninetieth percentile; None below 2 values."""
    there = measured(values)
    if len(there) < 2:
        return None
    tenths = quantiles(there, n=10, method="inclusive")
    return tenths[0], tenths[-1]


def short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
