"""Aggregates the outcomes of all cases into the figures of a run."""

from collections.abc import Iterable
from statistics import median

from ...errors import InputError
from ..metrics.frames import mouth_correlation
from ..metrics.spectrum import worst_octave
from ..rows import REALPORTRAIT, STATIC
from .protocol import Outcome, new_frames

# Correlation of the mouth's opening with the truth's -> the metrics that hold both openings, px of each frame.
MOUTHS = {
    "mouth_correlation": ("mouth_px", "true_mouth_px"),  # by M's keypoints
    "landmark_mouth_correlation": ("lips_gap_px", "true_lips_gap_px"),  # by the landmarker
}


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def clips_in_a_row(outcomes: list[Outcome], clip_frames: int) -> list[dict]:
    """RealPortrait by clips of the network: every metric, and the mean error of red, green and blue in 1/255.

    Only frames that all outcomes have are counted.
    """
    frames = min(len(outcome.colours[REALPORTRAIT]) for outcome in outcomes)
    metrics, figures = outcomes[0].scores[REALPORTRAIT], []
    for k, new in enumerate(new_frames(frames, clip_frames)):
        figures.append(
            {
                "frames": [new.start, new.stop - 1],
                **{name: mean(outcome.scores[REALPORTRAIT][name][i - 1] for outcome in outcomes for i in new) for name in metrics},
                **spectrum_figures([mean(octave) for octave in zip(*(outcome.clip_spectra[k] for outcome in outcomes))]),
                "colour_error_255": [
                    255 * mean(outcome.colours[REALPORTRAIT][i][colour] for outcome in outcomes for i in new) for colour in range(3)
                ],
            }
        )
    return figures


def spectrum_figures(octaves: list[float]) -> dict:
    """Of dB by octave, coarse to fine."""
    return {"spectrum_worst_db": worst_octave(octaves), "spectrum_finest_db": octaves[-1], "spectrum_db": octaves}


def row_figures(outcomes: list[Outcome], row: str) -> dict:
    """The means of the clips' means. The worst octave is that of the clips' mean dB; "identity_median" is over all frames."""
    scores = [outcome.scores[row] for outcome in outcomes]
    figures = {name: mean(mean(score[name]) for score in scores) for name in scores[0]}
    figures |= spectrum_figures([mean(octave) for octave in zip(*(outcome.spectra[row] for outcome in outcomes))])
    if "identity" in figures:
        figures["identity_median"] = median(value for score in scores for value in score["identity"])
    for name, openings in MOUTHS.items():
        if openings[0] in figures:
            figures[name] = mouth_correlation(*([score[opening] for score in scores] for opening in openings))
    return figures


def summary(outcomes: list[Outcome], clip_frames: int) -> dict:
    """Every figure of a run. InputError where no case could be scored."""
    if not outcomes:
        raise InputError("0 clips could be scored: see the log for the reason of each.")
    clips: list[dict] = [
        {
            "name": outcome.name,
            "driver": outcome.faces,
            "sampling_seconds": outcome.sampling_seconds,
            "rows": {row: row_figures([outcome], row) for row in outcome.scores},
            "frames_from_1": outcome.scores,
        }
        for outcome in outcomes
    ]
    rows = {row: row_figures(outcomes, row) for row in outcomes[0].scores}
    for figures in rows.values():
        figures["over_static_db"] = figures["psnr_db"] - rows[STATIC]["psnr_db"]
    better = [
        ours > still
        for outcome in outcomes
        for ours, still in zip(outcome.scores[REALPORTRAIT]["psnr_db"], outcome.scores[STATIC]["psnr_db"])
    ]
    worst = min(clips, key=lambda clip: clip["rows"][REALPORTRAIT]["psnr_db"])
    return {
        "rows": rows,
        "clips_in_a_row": clips_in_a_row(outcomes, clip_frames),
        "frames_scored": len(better),
        "frames_better_than_static_percent": 100 * mean(better),
        "worst_clip": {
            "name": worst["name"],
            "psnr_db": worst["rows"][REALPORTRAIT]["psnr_db"],
            "static_psnr_db": worst["rows"][STATIC]["psnr_db"],
        },
        "sampling_seconds_per_clip": mean(outcome.sampling_seconds for outcome in outcomes),
        "clips": clips,
    }
