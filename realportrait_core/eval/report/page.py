"""The report as one HTML page, which loads nothing: style, script, plots, pictures and videos lie in it."""

import sys
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ..columns import COLUMNS
from ..record import CaseRecord
from ..rows import REALPORTRAIT
from .about import About
from .cells import arrow, column_of, in_words
from .gallery import WORST, Gallery, player_data
from .plots import Plot, drift_plots, error_plot, row_colours, steady_plots
from .sheets import details, sheets, size_of
from .statistics import CONFIDENCE, RESAMPLES, Table, in_order, rows_of

HERE = Path(__file__).parent
MOST_BARS = 40  # cases of one plot


@dataclass(frozen=True)
class Plots:
    """Those of a page, or why there are none."""

    drift: tuple[Plot, ...] = ()
    steady: tuple[Plot, ...] = ()
    errors: tuple[Plot, ...] = ()
    why: str = ""


def page(about: About, tables: list[Table], galleries: list[Gallery], left_out: dict[str, str]) -> str:
    """HTML. left_out: what could not be measured -> why. InputError where jinja2 is missing."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise InputError(
            f"The page needs jinja2, which cannot be imported ({error}): `{sys.executable} -m pip install jinja2`."
        ) from error
    cases = [case for gallery in galleries for case in gallery.cases]
    records = [case.record for case in cases]
    colours = row_colours(rows_of(records))
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        about=about,
        sheets=sheets(tables, about.tables, about.missing),
        details=[details(table, about.tables.get(table.name, "")) for table in tables],
        galleries=galleries,
        worst=WORST,
        plots=plots_of(records, galleries, colours, about.clip_frames),
        colours=colours,
        ours=REALPORTRAIT,
        left_out=left_out,
        notes=dict.fromkeys(f"{record.table}/{record.name}: {note}" for record in records for note in record.notes),
        frames=sum(record.scored for record in records),
        player={"cases": player_data(cases, colours), "metrics": player_metrics(records)},
        confidence=round(100 * CONFIDENCE),
        resamples=RESAMPLES,
        arrow=arrow,
        in_words=in_words,
        size_of=size_of,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        svg=Markup,
    )


def plots_of(records: list[CaseRecord], galleries: list[Gallery], colours: dict[str, int], clip_frames: int) -> Plots:
    """All of them; without matplotlib none, and how to get it."""
    try:
        errors = [
            error_plot([case.record for case in gallery.cases][:MOST_BARS], gallery.metric, colours, gallery.name)
            for gallery in galleries
            if gallery.metric is not None
        ]
        return Plots(
            tuple(drift_plots(records, colours, clip_frames)), tuple(steady_plots(records, colours, clip_frames)), tuple(errors)
        )
    except InputError as error:
        return Plots(why=f"There are no plots: {error}")


def player_metrics(records: list[CaseRecord]) -> list[dict]:
    """Of a value for every frame, in the report's order."""
    names = {name for record in records for figures in record.frames.values() for name in figures}
    return [
        {"name": name, "title": column.title, "unit": column.unit, "digits": column.digits, "arrow": arrow(column)}
        for name in in_order(sorted(names), COLUMNS)
        for column in [column_of(name)]
    ]
