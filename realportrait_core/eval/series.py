"""What the plots of the report show, as dicts of lists: figures by clips of the network, and figures by frames with the joins.

clip_series  -> {"clip": [0, 1, ...], "frames": [[1, 15], ...], "cases": 3, "rows": {row: {metric: {
                 "value": Values, "used": [3, ...], "slope": float | None, "first": ..., "last": ...}}}}
frame_series -> {"frame": [1, 2, ...], "joins": [16, 31, ...], "rows": {row: {metric: Values}}}
"""

from collections.abc import Sequence

from ..errors import InputError
from .drift import by_clip, clip_ranges, trend
from .record import CaseRecord, Values
from .temporal import joins, mean


def clip_series(records: Sequence[CaseRecord], metrics: Sequence[str], clip_frames: int, first: int = 1) -> dict:
    """Mean over cases of each metric in each clip of the network. first: the frame of the records' first values.

    "used": the cases with a value in each clip. InputError for no record, or records of different lengths.
    """
    lengths = sorted({record.scored for record in records})
    if len(lengths) != 1:
        raise InputError(f"A series needs cases of one length; these {len(records)} have {lengths} scored frames.")
    ranges = clip_ranges(first + lengths[0], clip_frames, first)
    shown: dict[str, dict[str, dict]] = {}
    for row in rows_of(records):
        for metric in metrics:
            found = [
                by_clip(record.frames[row][metric], clip_frames, first)
                for record in records
                if metric in record.frames.get(row, {})
            ]
            if found:
                shown.setdefault(row, {})[metric] = curve(found)
    return {
        "clip": list(range(len(ranges))),
        "frames": [[new.start, new.stop - 1] for new in ranges],
        "cases": len(records),
        "rows": shown,
    }


def curve(cases: list[Values]) -> dict:
    """Of one metric by clips, case after case. Slopes are those of the cases: a clip that one case lacks does not tilt them."""
    lines = [trend(case) for case in cases]
    slopes: Values = [None if line is None else line.slope for line in lines]
    return {
        "value": [mean(list(clip)) for clip in zip(*cases)],
        "used": [sum(one is not None for one in clip) for clip in zip(*cases)],
        "slope": mean(slopes),
        "slopes": slopes,
    }


def frame_series(record: CaseRecord, metrics: Sequence[str], clip_frames: int, first: int = 1) -> dict:
    """One case's metrics by frames, and the joins of the network's clips: the first frame of each clip but the first."""
    rows = {row: {metric: figures[metric] for metric in metrics if metric in figures} for row, figures in record.frames.items()}
    return {
        "frame": list(range(first, first + record.scored)),
        "joins": joins(first + record.scored, clip_frames),
        "rows": {row: figures for row, figures in rows.items() if figures},
    }


def rows_of(records: Sequence[CaseRecord]) -> list[str]:
    """All rows, in the order in which they first appear."""
    return list(dict.fromkeys(row for record in records for row in record.frames))
