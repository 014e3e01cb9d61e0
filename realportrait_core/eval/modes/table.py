"""The report as text for a terminal: perceptual metrics first, then distances in pixels and in M's keypoints."""

from ..judges.loading import HOW_TO_GET
from ..rows import FACE_VID2VID, STATIC

NAME = 16  # characters of a row's name
ABSENT = "-"


def column(figures: dict, name: str, form: str) -> str:
    """One figure of a row, or ABSENT."""
    return format(figures[name], form) if name in figures else ABSENT


def perceptual_block(report: dict) -> list[str]:
    """ST-LPIPS, spectrum, identity, landmarks and the mouth by them, row by row; then how to get the missing files."""
    lines = [
        f"Perceptual: ST-LPIPS ({report['stlpips_net']}); power relative to the truth's, dB (below 0 blur, above artefacts): "
        "worst and finest octave;",
        "identity distance to the portrait (one person: at most .42); error of MediaPipe's landmarks of eyes, lips and brows, px, "
        "and mouth r by them.",
        f"{'':{NAME}}{'ST-LPIPS':>10}{'worst octave':>14}{'finest':>9}{'identity':>10}{'landmarks':>11}{'mouth r':>9}",
    ]
    for row, figures in report["rows"].items():
        lines.append(
            f"{row:{NAME}}{column(figures, 'st_lpips', '.3f'):>10}{figures['spectrum_worst_db']:+14.1f}"
            f"{figures['spectrum_finest_db']:+9.1f}{column(figures, 'identity', '.3f'):>10}"
            f"{column(figures, 'landmarks_px', '.2f'):>11}{column(figures, 'landmark_mouth_correlation', '.2f'):>9}"
        )
    return lines + [f"{ABSENT} {measure}: {HOW_TO_GET[measure]}" for measure in report["judges_missing"]]


def distance_block(report: dict) -> list[str]:
    """PSNR, SSIM and the errors of M's keypoints and head pose, row by row."""
    lines = [
        "Distances: pixels, and keypoints, mouth and head pose as M predicts them.",
        f"{'':{NAME}}{'PSNR dB':>9}{'over static':>13}{'SSIM':>8}{'keypoints px':>14}{'eyes, mouth':>13}{'mouth r':>9}"
        f"{'head deg':>10}{'outside':>9}",
    ]
    for row, figures in report["rows"].items():
        over = "" if row == STATIC else f"{figures['over_static_db']:+.2f}"
        lines.append(
            f"{row:{NAME}}{figures['psnr_db']:9.2f}{over:>13}{figures['ssim']:8.4f}{figures['keypoint_error_px']:14.2f}"
            f"{column(figures, 'eyes_mouth_error_px', '.2f'):>13}{column(figures, 'mouth_correlation', '.2f'):>9}"
            f"{figures['rotation_error_deg']:10.2f}{figures['outside_error_255']:9.2f}"
        )
    if FACE_VID2VID not in report["rows"]:
        lines.append(f"{FACE_VID2VID:{NAME}}    these weights have no generator G")
    return lines


def clips_block(report: dict) -> list[str]:
    """RealPortrait by clips of the network."""
    lines = [
        f"{'Clips in a row:':{NAME}}{'ST-LPIPS':>10}{'worst octave':>14}{'finest':>9}{'identity':>10}{'landmarks':>11}"
        f"{'PSNR dB':>9}{'red':>8}{'green':>8}{'blue':>8} (mean error, 1/255)"
    ]
    for clip in report["clips_in_a_row"]:
        first, last = clip["frames"]
        colours = "".join(f"{error:+8.2f}" for error in clip["colour_error_255"])
        lines.append(
            f"{f'frames {first:3}-{last}':{NAME}}{column(clip, 'st_lpips', '.3f'):>10}{clip['spectrum_worst_db']:+14.1f}"
            f"{clip['spectrum_finest_db']:+9.1f}{column(clip, 'identity', '.3f'):>10}"
            f"{column(clip, 'landmarks_px', '.2f'):>11}{clip['psnr_db']:9.2f}{colours}"
        )
    return lines


def table(report: dict) -> str:
    """The report of `evaluate` as text, at most 160 characters wide, except the reasons of clips left out."""
    worst = report["worst_clip"]
    lines = [
        f"{report['mode']} on {report['data']}: {report['clips_used']} used / {report['clips_total']} total clips",
        f"Scored: {report['frames_scored']} frames, 1 to the last of a clip (0 is the portrait); {report['steps']} steps of "
        f"{report['solver']}.",
        "",
        *perceptual_block(report),
        "",
        *distance_block(report),
        "",
        *clips_block(report),
        "",
        "By PSNR RealPortrait is better than the static portrait in "
        f"{report['frames_better_than_static_percent']:.1f} % of frames; "
        f"worst clip {worst['name']}: {worst['psnr_db']:.2f} dB (static {worst['static_psnr_db']:.2f}).",
        f"{report['seconds']:.0f} s in all, {report['sampling_seconds_per_clip']:.1f} s of sampling a clip.",
    ]
    lines += [f"Left out {name}: {reason}" for name, reason in report["left_out"].items()]
    return "\n".join(lines) + "\n"
