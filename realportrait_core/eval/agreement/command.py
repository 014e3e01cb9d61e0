"""python -m realportrait_core.eval agreement --data DIR --landmarker FILE: the offline estimators on rendered clips."""

import argparse
import sys
from pathlib import Path

from ...errors import InputError
from ...face.detect import MODEL_NAME, FaceDetector
from ...face.find import find_detector
from ...vid2vid.checkpoint import load_vid2vid
from ..cases import DRIVERS, OTHERS
from ..judges.estimators import load_estimator
from ..judges.recognition import load_recognition
from ..run.case_options import check_at_least_1
from ..writing import write_json
from . import tables as agreement

TITLES = {
    "pose": "Head pose against the true rotation",
    "expression": "Parts of the expression against the true coefficients",
    "distance": "Estimated L1 of two frames against the true L1",
    "scale": "Errors of cross-reenactment for rendered results: by the estimator, and by their truth",
    "identity": "Cosine with a clip's first frame",
}


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m realportrait_core.eval agreement",
        description=agreement.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="rendered clips, .mp4 with .npz; pairs as heads256 has them first")
    parser.add_argument("--landmarker", type=Path, required=True, help="MediaPipe's face_landmarker.task")
    parser.add_argument("--identity", type=Path, help="npm's face-api folder, or ArcFace or SFace as .onnx: adds identity")
    parser.add_argument("--vid2vid", type=Path, help="Face Vid2vid's weights: adds the rotation of their M")
    parser.add_argument("--limit", type=int, default=20, help="clips (%(default)s)")
    parser.add_argument("--every", type=int, default=3, help="every so many frames of each (%(default)s)")
    parser.add_argument("--detector", type=Path, help=f"{MODEL_NAME}; by default where install.py puts it")
    parser.add_argument("--json", type=Path, help="write the tables")
    return parser.parse_args(argv)


def rendered_clips(folder: Path) -> list[Path]:
    """The clips with a ground truth beside them, pairs of identities with one motion first. InputError where there is none."""
    clips = {clip.stem: clip for clip in sorted(folder.glob("*.mp4")) if clip.with_suffix(".npz").is_file()}
    if not clips:
        raise InputError(f"{folder} holds no rendered clip, an .mp4 with its .npz.")
    partners = {name: str(int(name) + OTHERS - DRIVERS) for name in clips if name.isdecimal()}
    paired = [name for one, other in partners.items() if other in clips for name in (one, other)]
    return [clips[name] for name in dict.fromkeys([*paired, *clips])]


def command(argv: list[str]) -> int:
    """Prints the tables; --json is written."""
    options = parse(argv)
    check_at_least_1(options, "limit", "every")
    clips = rendered_clips(options.data)[: options.limit]
    detector, estimator = FaceDetector(options.detector or find_detector()), load_estimator(options.landmarker)
    recognition = None if options.identity is None else load_recognition(options.identity)
    motion = None if options.vid2vid is None else load_vid2vid(options.vid2vid).motion
    seen = [
        agreement.look(clip.stem, *agreement.read_rendered(clip, options.every), detector, estimator, recognition, motion)
        for clip in clips
    ]
    tables = agreement.agreement(seen)
    frames, found = (sum(int(n) for n in counts) for counts in zip(*((len(s.exact), s.estimated.found.sum()) for s in seen)))
    if options.json:
        write_json(options.json, {"clips": len(clips), "frames": frames, "found": found, "tables": tables})
    head = f"{len(clips)} clips of {options.data}, every {options.every} frames; a face was found in {found} of {frames} frames"
    network = "" if recognition is None else f" ({recognition.kind})"
    parts = [f"{TITLES[name]}{network if name == 'identity' else ''}\n{text_table(rows)}" for name, rows in tables.items()]
    sys.stdout.write("\n\n".join([head, *parts]) + "\n")
    return 0


def text_table(rows: list[agreement.Row]) -> str:
    """Columns aligned; figures with three digits, None as -."""
    cells = [list(rows[0]), *([shown(row[column]) for column in rows[0]] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    words = [isinstance(value, str) for value in rows[0].values()]
    lines = ([cell.ljust(w) if left else cell.rjust(w) for cell, w, left in zip(line, widths, words)] for line in cells)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def shown(value: str | int | float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
