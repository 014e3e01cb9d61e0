"""python -m realportrait_core.eval self|cross|photos|continued --data DIR: compares animations with the ground truth.

report --out OUT   the whole evaluation (run/)
page OUT           writes its tables and page again, from OUT/report.json (report/)
inputs --out DIR   writes its cases for other methods (methods/)
agreement          compares the estimators of expression, pose and identity with rendered truth (agreement/)
"""

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import get_args

from ..animation.framing import FRAMINGS
from ..diffusion.sampling import Solver
from ..diffusion.schedule import linear_schedule
from ..dit.ablation import load_network
from ..errors import InputError, RealPortraitError
from ..face.detect import MODEL_NAME, FaceDetector
from ..face.find import find_detector
from ..speed import GUIDANCE, PAPER_STEPS, STEPS, default_guidance, default_sampling
from ..stlpips import Net
from ..vae import load_vae
from ..vid2vid.checkpoint import load_vid2vid
from . import cases
from .agreement.command import command as agreement_command
from .judges.loading import load_judges
from .methods import inputs
from .modes import protocol
from .modes.sample_grid import write_sample_grid
from .modes.summary import summary
from .modes.table import table
from .report.command import command as page_command
from .rows import SEED
from .run.command import command as report_command
from .writing import write_json

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
COMMANDS = {"report": report_command, "page": page_command, "inputs": inputs.command, "agreement": agreement_command}
CASES = {"self": cases.self_cases, "cross": cases.cross_cases, "continued": cases.continued_cases}

PHOTOS = "photos"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m realportrait_core.eval",
        description=protocol.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The whole evaluation: python -m realportrait_core.eval report --help; and page, inputs, agreement --help",
    )
    parser.add_argument("mode", choices=sorted([*CASES, PHOTOS]))
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of .mp4 clips; cross needs pairs as heads256 has them, photos pictures with their points.npz",
    )
    parser.add_argument("--canonical", type=Path, help="canonical_face_model.obj of MediaPipe, for the mode photos")
    parser.add_argument("--limit", type=int, help="the first so many clips or pairs, by name; all by default")
    parser.add_argument(
        "--steps",
        type=int,
        help=f"of each clip. By default {PAPER_STEPS} for epsilon weights, as in the paper, and {STEPS} for v weights; distilled "
        "weights have their own number. PSNR rewards few steps: compare at one number",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        help=f"from the portrait without motion to the one with it; 1: none, half the time. By default {GUIDANCE:g}, "
        "and none for distilled and for epsilon weights",
    )
    parser.add_argument(
        "--solver",
        choices=get_args(Solver),
        help="by default ancestral for epsilon weights, as in the paper, and ddim for v weights",
    )
    parser.add_argument(
        "--framing",
        choices=FRAMINGS,
        default="whole",
        help="the square around the face of a clip's first frame: its shorter side (%(default)s), or, as by "
        "default in the nodes, closer to a small face (auto)",
    )
    parser.add_argument("--stlpips", type=Path, help="the wheel stlpips-pytorch 0.0.2, or its folder: adds ST-LPIPS")
    parser.add_argument("--stlpips-net", choices=get_args(Net), default="alex", help="of its two networks (%(default)s)")
    parser.add_argument("--identity", type=Path, help="the folder `model` of npm's @vladmandic/face-api: adds identity")
    parser.add_argument("--landmarker", type=Path, help="MediaPipe's face_landmarker.task: adds landmarks")
    parser.add_argument("--json", type=Path, help="write every figure, of each frame too")
    parser.add_argument("--strip", type=Path, help="write a PNG grid of portrait, truth and results")
    parser.add_argument("--vid2vid", type=Path, default=WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors")
    parser.add_argument("--dit", type=Path, default=WEIGHTS / "realportrait" / "realportrait_mini.safetensors")
    parser.add_argument("--vae", type=Path, default=WEIGHTS / "vae" / "realportrait_mini_vae.safetensors")
    parser.add_argument("--detector", type=Path, help=f"{MODEL_NAME}; by default where install.py puts it")
    return parser.parse_args(argv)


def evaluate(options: argparse.Namespace) -> dict:
    """The report; files are written."""
    began = time.perf_counter()
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit is {options.limit}; it must be at least 1.")
    if options.mode == PHOTOS:
        if options.canonical is None:
            raise InputError(
                "Photos are turned in 3-D by the triangles of MediaPipe's canonical_face_model.obj: name it by --canonical."
            )
        chosen = cases.photo_cases(options.data, options.canonical, options.limit)
    else:
        chosen = CASES[options.mode](options.data)[: options.limit]
    networks = protocol.Networks(
        load_vid2vid(options.vid2vid),
        load_network(options.dit),
        load_vae(options.vae),
        FaceDetector(options.detector or find_detector()),
        linear_schedule(),
        load_judges(options.stlpips, options.stlpips_net, options.identity, options.landmarker),
    )
    speed = default_sampling(networks.dit.cfg, options.steps, options.solver)
    guidance = default_guidance(networks.dit.cfg) if options.guidance is None else options.guidance
    outcomes, left_out = protocol.run(networks, chosen, speed, options.framing, guidance)
    report = {
        "mode": options.mode,
        "data": str(options.data),
        "steps": speed.steps,
        "solver": speed.solver,
        "guidance": guidance,
        "seed": SEED,
        "framing": options.framing,
        "stlpips_net": options.stlpips_net,
        "judges_missing": networks.judges.missing,
        "weights": {name: str(getattr(options, name)) for name in ("vid2vid", "dit", "vae")},
        "scored": "frames 1 to the last; frame 0 is the portrait",
        "clips_used": len(outcomes),
        "clips_total": len(chosen),
        "left_out": left_out,
    } | summary(outcomes, networks.dit.cfg.clip_frames)
    report["seconds"] = time.perf_counter() - began
    if options.json:
        write_json(options.json, report)
    if options.strip:
        write_sample_grid(options.strip, outcomes)
    return report


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    command = COMMANDS.get(argv[0]) if argv else None
    try:
        if command is not None:
            return command(argv[1:])
        text = table(evaluate(parse(argv)))
    except RealPortraitError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
