"""How far the bundled weights drift from clip to clip of a long animation.

    python -m benchmarks.long_drift --out DIR [--clips N] [--portrait FILE] [--driving FILE] [--identity FOLDER] [--only NAME]
    python -m benchmarks.long_drift --decay
    python -m benchmarks.long_drift --accumulate [--keeps SHARE]

The driving video is played forwards and backwards until the clips are full. Each form of continuation (FORMS) is animated into a
folder of its own below --out, from where a run that was broken off goes on. Prints the figures, their change per clip and their
means, and writes figures.json, drift.svg, which sets the forms beside one another, and of each form frames.png, single frames of
the video. --decay: how much of an error in a conditional frame is left after one clip, two clips and so on. --accumulate: what
comes together where every clip adds an error, without and with a correction (`long.correction`).
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

import realportrait_core
from realportrait_core.animation.clips import plan
from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.retargeting import DrivenKeypoints, drive_keypoints
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.checkpoint import load_dit
from realportrait_core.errors import InputError, RealPortraitError
from realportrait_core.eval.cases import Case, ping_pong, read_clip
from realportrait_core.eval.judges.likeness import likeness
from realportrait_core.eval.judges.recognition import load_recognition
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.find import find_detector
from realportrait_core.face.track import portrait_points, track
from realportrait_core.inspect.drift import trend
from realportrait_core.long.correction import colours_of, moved
from realportrait_core.long.drift import FIGURES, drift_report, drifts, trends
from realportrait_core.long.maps import ClipMotion
from realportrait_core.long.renderers import CoreRenderer, core_renderer
from realportrait_core.long.run import LongSettings, animate_long
from realportrait_core.vae import load_vae
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import load_vid2vid

ASSETS = Path(__file__).resolve().parent.parent / "assets"
WEIGHTS = Path(realportrait_core.__file__).parent / "weights"
FPS = 12.5  # of the bundled weights' training
# How clips follow one another.
FORMS = {
    "1 frame": LongSettings(),
    "4 frames": LongSettings(overlap=4),
    "chosen tail": LongSettings(tail_window=4),
    "half corrected": LongSettings(correction=0.5),
    "corrected": LongSettings(correction=1.0),
}
SHOWN = (0, 9, 19, 29)  # clips of which frames.png has the last frame
DECAY_CLIPS, ACCUMULATE_CLIPS = 2, 5
STRENGTHS = (0.0, 0.5, 1.0)  # of the correction
SLIGHT = 0.25  # of the tint that is put in at once: what a clip adds
KEPT = 0.7  # of a conditional frame's error: with the 0.3 of the bundled weights a network that does not come back to the portrait
DRAWN = ("green_255", "contrast", "sharpness", "keypoints_px", "head_deg", "identity")

log = logging.getLogger("benchmarks")

Figures = list[dict[str, float]]  # of each clip


@dataclass(frozen=True)
class Scene:
    """What is animated."""

    vid2vid: FaceVid2Vid
    driven: DrivenKeypoints
    render: CoreRenderer
    identity: Callable[[Tensor], Tensor] | None


@torch.inference_mode()
def prepare(options: argparse.Namespace) -> Scene:
    vid2vid = load_vid2vid(WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors")
    dit = load_dit(WEIGHTS / "realportrait" / "realportrait_mini.safetensors")
    vae, detector = load_vae(WEIGHTS / "vae" / "realportrait_mini_vae.safetensors"), FaceDetector(find_detector())
    portrait = Case("", options.driving, None, portrait=options.portrait).portrait_picture()[None].float() / 255
    driving = ping_pong(read_clip(options.driving), 1 + options.clips * (dit.cfg.clip_frames - 1))
    points = portrait_points(portrait[0], detector)
    driven = drive_keypoints(extract_keypoints(vid2vid, portrait, driving.float() / 255, points, track(driving, detector)))
    render = core_renderer(vid2vid, dit, vae, linear_schedule(), portrait, driven)
    network = None if options.identity is None else load_recognition(options.identity)
    identity = None if network is None else likeness(network, detector, render.portrait_square)
    return Scene(vid2vid, driven, render, identity)


def animate(scene: Scene, name: str, out: Path) -> Figures:
    """The figures of one of FORMS, and its frames.png."""
    folder = out / name.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)

    def progress(done: int, total: int) -> None:
        log.info("%s: %d of %d frames", name, done, total)

    result = animate_long(
        scene.vid2vid, scene.driven, scene.render, folder, FPS, FORMS[name], identity=scene.identity, callback=progress
    )
    new = scene.render.clip_frames - 1
    write_frames(
        result.path, [0, *(new * (clip + 1) for clip in SHOWN if new * (clip + 1) < len(scene.driven))], folder / "frames.png"
    )
    return result.figures


@torch.inference_mode()
def decay(scene: Scene, clips: int) -> Iterator[dict[str, float]]:
    """What is left of each of ERRORS in the conditional frame after each clip: distance of the last frame's latents from those of
    the same clips without the error, root mean square, over the same distance in the conditional frame.
    """
    render, motion = scene.render, ClipMotion(scene.vid2vid, scene.driven, scene.render.size, scene.render.framing)
    first, *following = plan(len(scene.driven), render.clip_frames)[: clips + 1]
    plain = render(first, motion(first.start, first.stop), None).latents[-1:]  # (1, 4, h, w)
    picture = render.vae.decode(plain)
    faulty = {name: plain + render.vae.encode(change(picture)) - render.vae.encode(picture) for name, change in ERRORS.items()}
    start = {name: rms(latents - plain) for name, latents in faulty.items()}
    for clip in following:
        part = motion(clip.start, clip.stop)
        plain, *others = (render(clip, part, known).latents[-1:] for known in (plain, *faulty.values()))
        faulty = dict(zip(faulty, others))
        yield {name: rms(latents - plain) / start[name] for name, latents in faulty.items()}


@torch.inference_mode()
def accumulate(scene: Scene, clips: int, keeps: float) -> Iterator[dict[float, tuple[float, float]]]:
    """An error that every clip but the first adds: by STRENGTHS, how far the last frame of each clip is from that of the same
    clips without errors and correction, in the mean colours of the picture and in all of the latents, over one such error.

    keeps: share of a conditional frame's error that is handed on besides what the weights hand on themselves.
    """
    render, motion = scene.render, ClipMotion(scene.vid2vid, scene.driven, scene.render.size, scene.render.framing)

    def error(latents: Tensor) -> Tensor:  # (1, 4, h, w)
        picture = render.vae.decode(latents)
        return render.vae.encode(tinted(picture, SLIGHT)) - render.vae.encode(picture)

    def distances(latents: Tensor, others: Tensor) -> tuple[float, float]:
        colours = (render.vae.decode(part).mean((2, 3)) for part in (latents, others))  # (1, 3)
        return rms(next(colours) - next(colours)), rms(latents - others)

    first, *following = plan(len(scene.driven), render.clip_frames)[: clips + 1]
    begun = render(first, motion(first.start, first.stop), None).latents
    plain, wanted = begun[-1:], colours_of(begun)
    one = distances(plain + error(plain), plain)
    known = dict.fromkeys(STRENGTHS, plain)
    for clip in following:
        part, before, away = motion(clip.start, clip.stop), plain, {}
        plain = render(clip, part, before).latents[-1:]
        for strength in STRENGTHS:
            new = render(clip, part, known[strength]).latents[clip.overlap :] + keeps * (known[strength] - before)
            new = new + error(new[-1:])
            colours, whole = distances(new[-1:], plain)
            away[strength] = colours / one[0], whole / one[1]
            known[strength] = moved(new[-1:], colours_of(new), wanted, strength)
        yield away


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def tinted(pictures: Tensor, amount: float = 1.0) -> Tensor:
    """Pictures (n, 3, H, W) in [0, 1] with another tint and, by an amount of 1, four fifths of the contrast."""
    mean = pictures.mean((2, 3), keepdim=True)
    tint = amount * pictures.new_tensor([24.0, 8, -16])[:, None, None] / 255
    return (mean + (1 - 0.2 * amount) * (pictures - mean) + tint).clamp(0, 1)


def blurred(pictures: Tensor) -> Tensor:
    """Pictures (n, 3, H, W) blurred by a box of 9 px."""
    return F.avg_pool2d(F.pad(pictures, (4, 4, 4, 4), mode="replicate"), 9, stride=1)


ERRORS = {"tint": tinted, "blur": blurred}  # that one sees at once


def summary(found: dict[str, Figures]) -> str:
    """A table in Markdown of each form's figures, means of all its clips, and of what drifts in it."""
    titles = [figure.title for figure in FIGURES.values()]
    lines = [f"| form | clips | {' | '.join(titles)} | drifts |", "|---" * (len(titles) + 3) + "|"]
    for form, figures in found.items():
        measured = {name: [clip[name] for clip in figures if name in clip] for name in FIGURES}
        means = (f"{fmean(measured[name]):.{figure.digits}f}" if measured[name] else "-" for name, figure in FIGURES.items())
        drifting = [FIGURES[name].title for name, one in trends(figures).items() if drifts(name, one)]
        lines.append(f"| {form} | {len(figures)} | {' | '.join(means)} | {', '.join(drifting) or 'nothing'} |")
    return "\n".join(lines)


def write_frames(video: Path, numbers: list[int], path: Path) -> None:
    """Frames of a video side by side."""
    from PIL import Image

    Image.fromarray(torch.cat(list(read_clip(video)[numbers]), 1).numpy()).save(path)


def draw(found: dict[str, Figures], path: Path) -> None:
    """A plot of each of DRAWN by clips, a line and its dashed trend a form. InputError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"matplotlib cannot be imported ({error}): pip install matplotlib.") from error
    names = [name for name in DRAWN if any(name in clip for figures in found.values() for clip in figures)]
    rows = (len(names) + 2) // 3
    with matplotlib.rc_context({"svg.hashsalt": "drift", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 2.2 * rows), layout="constrained")
        for name, axes in zip(names, figure.subplots(rows, 3, squeeze=False).flat):
            for form, figures in found.items():
                numbers = [number for number, clip in enumerate(figures) if name in clip]
                values = [figures[number][name] for number in numbers]
                (line,) = axes.plot(numbers, values, label=form, linewidth=1.2)
                found_trend = trend(values)
                if found_trend is not None:
                    middle, reach = sum(values) / len(values), found_trend.slope * (len(values) - 1) / 2
                    ends = numbers[0], numbers[-1]
                    axes.plot(ends, (middle - reach, middle + reach), color=line.get_color(), linewidth=0.8, linestyle="--")
            axes.set_title(FIGURES[name].title, fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
            axes.margins(x=0.01)
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, 0), 1.2 * high)  # from 0, so that a small change looks small
            axes.set_xlabel("clip")
        figure.axes[0].legend(frameon=False, fontsize=8)
        figure.savefig(path, format="svg", metadata=dict.fromkeys(("Date", "Creator")))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long_drift", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--decay", action="store_true", help="what is left of an error, and no run")
    parser.add_argument("--accumulate", action="store_true", help="what comes together of errors at every clip, and no run")
    parser.add_argument(
        "--keeps", type=float, default=KEPT, help="with --accumulate: share of an error that is handed on besides (%(default)s)"
    )
    parser.add_argument("--clips", type=int, default=30, help="of the network, with one conditional frame (%(default)s)")
    parser.add_argument("--portrait", type=Path, default=ASSETS / "portrait.png", help="a picture, or a video's first frame")
    parser.add_argument("--driving", type=Path, default=ASSETS / "driving.mp4")
    parser.add_argument("--identity", type=Path, help="a face recognition network, as in python -m realportrait_core.eval")
    parser.add_argument("--only", choices=tuple(FORMS), help="one form of continuation alone")
    options = parser.parse_args(argv)
    if options.out is None and not (options.decay or options.accumulate):
        parser.error("name a folder of the runs by --out, or measure --decay or --accumulate")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        if options.clips < 2:
            raise InputError(f"--clips is {options.clips}; it must be at least 2.")
        if options.decay:
            options.clips = DECAY_CLIPS + 1
            for clip, left in enumerate(decay(prepare(options), DECAY_CLIPS), 1):
                said = (f"{value:.2f} of a {name}" for name, value in left.items())
                print(f"left after {clip} clips: {', '.join(said)}", flush=True)
            return 0
        if options.accumulate:
            options.clips = ACCUMULATE_CLIPS + 1
            print(f"correction {' / '.join(f'{strength:g}' for strength in STRENGTHS)}", flush=True)
            for clip, away in enumerate(accumulate(prepare(options), ACCUMULATE_CLIPS, options.keeps), 1):
                colours, whole = (" / ".join(f"{value:.2f}" for value in values) for values in zip(*away.values()))
                print(f"errors of {clip} clips: colours {colours}, latents {whole}", flush=True)
            return 0
        scene, found = prepare(options), {}
        for name in [options.only] if options.only else FORMS:
            found[name] = animate(scene, name, options.out)
            print(f"{name}\n{drift_report(found[name])}\n", flush=True)
        print(summary(found), flush=True)
        (options.out / "figures.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        draw(found, options.out / "drift.svg")
    except RealPortraitError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
