"""The figures of a clip as text: a table in Markdown that can be read as it stands, and JSON with a value for every frame."""

import json
from collections.abc import Iterable
from dataclasses import asdict

from ..columns import Column
from ..metrics.drift import by_clip, clip_ranges
from ..values import Values, mean
from .report import ClipReport

NONE = "-"
ARROWS = {1: " ↑", -1: " ↓", 0: ""}
# In the order of the table.
FIGURES = {
    "identity_similarity": Column("identity similarity", better=1, digits=3),
    "sharp": Column("sharpness over the portrait's", digits=2),
    "head_deg": Column("head pose error", "degrees", -1, 2),
    "head_change_deg": Column("head pose error, relative", "degrees", -1, 2),
    "expression_px": Column("expression error", "px", -1, 2),
    "expression_change_px": Column("expression error, relative", "px", -1, 2),
    "pose_l1": Column("head pose L1, by landmarks", "radians", -1, 3),
    "pose_change_l1": Column("head pose L1, by landmarks, relative", "radians", -1, 3),
    "expression_l1": Column("expression L1, by blendshapes", better=-1, digits=3),
    "expression_change_l1": Column("expression L1, by blendshapes, relative", better=-1, digits=3),
    "mouth_correlation": Column("mouth correlation, by M", better=1, digits=2),
    "landmark_mouth_correlation": Column("mouth correlation, by landmarks", better=1, digits=2),
    "psnr_db": Column("PSNR", "dB", 1, 2),
    "ssim": Column("SSIM", better=1, digits=4),
    "st_lpips": Column("ST-LPIPS", better=-1, digits=3),
    "spectrum_worst_db": Column("spectrum, worst octave", "dB", digits=1),
    "spectrum_finest_db": Column("spectrum, finest octave", "dB", digits=1),
    "flicker_255": Column("flicker of the still part", "1/255", -1, 2),
    "truth_flicker_255": Column("flicker of the truth there", "1/255", digits=2),
    "jitter_px": Column("jitter of the keypoints", "px", digits=2),
    "driving_jitter_px": Column("jitter of the driving keypoints", "px", digits=2),
    "seam": Column("seam between clips, picture", better=-1, digits=2),
    "keypoint_seam": Column("seam between clips, keypoints", better=-1, digits=2),
}
# By clips of the network, where there are several.
BY_CLIP = {
    "identity_similarity": Column("identity", digits=3),
    "sharp": Column("sharpness", digits=2),
    "head_change_deg": Column("head", "degrees", digits=2),
    "st_lpips": Column("ST-LPIPS", digits=3),
    "psnr_db": Column("PSNR", "dB", digits=2),
    "red_255": Column("red", digits=1),
    "green_255": Column("green", digits=1),
    "blue_255": Column("blue", digits=1),
}
# A strip shows the worst frame of each of these.
WORST_OF = ("st_lpips", "psnr_db", "identity_similarity", "head_change_deg", "expression_change_px", "head_deg", "expression_px")
MEANING = (
    "↑ higher is better, ↓ lower is better. Sharpness, seams: 1 is equal, or none. Spectrum: 0 is equal, below blur, above "
    "artefacts. Jitter: best as in the driving video. Relative: as changes since the first frame. px: of a face crop of 256 px."
)


def worst(values: Values, better: int) -> tuple[float, int] | None:
    """The worst value and its frame; None where there is none, or where neither direction is better."""
    there = [(value, i) for i, value in enumerate(values) if value is not None]
    if not there or not better:
        return None
    return (min if better > 0 else max)(there, key=lambda pair: pair[0])


def worst_frames(report: ClipReport, most: int) -> list[tuple[int, str]]:
    """At most so many frames, and of which figure each is the worst."""
    found: dict[int, str] = {}
    for name in WORST_OF:
        if here := worst(report.frames.get(name, []), FIGURES[name].better):
            found.setdefault(here[1], f"worst {FIGURES[name].title}")
    return list(found.items())[:most]


def table(report: ClipReport, left_out: dict[str, str]) -> str:
    """What was found, the figures, what they mean, and what is left out and why. left_out: figure -> sentence."""
    faces = ", ".join(f"{name} {found} of {count}" for name, (found, count) in report.found.items())
    lines = [f"Frames that are judged: {report.scored}. With a face: {faces}.", ""]
    lines += listed(report.notes)
    rows = [line(report, name) for name in FIGURES if name in report.frames | report.whole]
    lines += markdown(["figure", "mean", "worst", "frame", "used"], rows)
    clips = by_clips(report)
    if len(clips) > 1:
        names = [name for name in BY_CLIP if name in clips[0]]
        rows = [[clip["frames"], *(shown(clip[name], BY_CLIP[name].digits) for name in names)] for clip in clips]
        head = ["frames", *(heading(BY_CLIP[name]) for name in names)]
        lines += ["", "By clips of the network, colours in 1/255:", "", *markdown(head, rows)]
    lines += ["", MEANING, "", *listed([f"Left out, {figure}: {reason}" for figure, reason in left_out.items()])]
    return "\n".join(lines).rstrip()


def listed(sentences: Iterable[str]) -> list[str]:
    """Items of a list, and the empty line that ends it."""
    items = [f"- {sentence}" for sentence in sentences]
    return [*items, ""] if items else []


def line(report: ClipReport, name: str) -> list[str]:
    column = FIGURES[name]
    title = heading(column)
    if name == "identity_similarity":
        title = f"{title} ({report.recognition})"
    if name in report.whole:
        whole = report.whole[name]
        return [title, shown(whole.value, column.digits), NONE, NONE, f"{whole.used} of {whole.of}"]
    values = report.frames[name]
    value, frame = worst(values, column.better) or (None, NONE)
    used = sum(value is not None for value in values)
    return [title, shown(mean(values), column.digits), shown(value, column.digits), str(frame), f"{used} of {len(values)}"]


def heading(column: Column) -> str:
    return column.title + (f", {column.unit}" if column.unit else "") + ARROWS[column.better]


def shown(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table whose columns are aligned with spaces: the first to the left, the others to the right."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]

    def aligned(row: list[str]) -> str:
        first, *others = zip(row, widths)
        return "| " + " | ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return [aligned(head), rule, *map(aligned, rows)]


def by_clips(report: ClipReport) -> list[dict]:
    """Of each clip of the network its frames, as "0-15", and the means of BY_CLIP; none where the frames were made at once."""
    if not report.clip_frames:
        return []
    ranges = clip_ranges(report.scored, report.clip_frames, 0)
    clips: list[dict] = [{"frames": f"{new.start}-{new.stop - 1}"} for new in ranges]
    for name in BY_CLIP:
        if name in report.frames:
            for clip, value in zip(clips, by_clip(report.frames[name], report.clip_frames, 0)):
                clip[name] = value
    return clips


def figures_json(report: ClipReport, left_out: dict[str, str]) -> str:
    """Everything, with a value for every frame and null where it could not be measured."""
    means = {name: mean(values) for name, values in report.frames.items()}
    return json.dumps(asdict(report) | {"mean": means, "clips": by_clips(report), "left_out": left_out}, allow_nan=False)
