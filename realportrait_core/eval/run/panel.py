"""The judges of the report: pretrained networks that are in no loss. Each takes a file of the user's, and says how to get it."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...batch.record import sha256
from ...stlpips import STLPIPS, load_stlpips
from ..judges import frechet, lpips
from ..judges.estimators import Estimator, load_estimator
from ..judges.frechet import Inception, load_inception
from ..judges.identity import DATA
from ..judges.loading import HOW_TO_GET
from ..judges.lpips import LPIPS, load_lpips
from ..judges.recognition import Recognition, load_recognition

RECOGNITION = HOW_TO_GET["identity"] + "; or ArcFace, as in the paper, or SFace as .onnx"


@dataclass(frozen=True)
class JudgeFiles:
    """Paths; None: not given, and its metrics are left out."""

    stlpips: Path | None = None  # the wheel, or its folder
    identity: Path | None = None  # face-api's folder `model`, or ArcFace or SFace as .onnx
    landmarker: Path | None = None  # face_landmarker.task
    lpips: Path | None = None  # torchvision's AlexNet, VGG16 or SqueezeNet 1.1
    inception: Path | None = None  # FID's

    def marks(self) -> dict[str, str]:
        """The SHA-256 of each file, or of a folder's weights, by role."""
        return {role: mark(path) for role, path in vars(self).items() if path is not None}

    def missing(self) -> dict[str, str]:
        """Metric that is left out -> how to get what it needs."""
        wanting = {
            "lpips": (self.lpips, lpips.HOW_TO_GET),
            "fid": (self.inception, frechet.HOW_TO_GET),
            "st_lpips": (self.stlpips, HOW_TO_GET["ST-LPIPS"]),
            "frechet_stlpips": (self.stlpips, HOW_TO_GET["ST-LPIPS"]),
            "identity_similarity": (self.identity, RECOGNITION),
            "expression_l1": (self.landmarker, HOW_TO_GET["landmarks"]),
            "pose_l1": (self.landmarker, HOW_TO_GET["landmarks"]),
            "landmarks_px": (self.landmarker, HOW_TO_GET["landmarks"]),
        }
        found = {metric: how for metric, (path, how) in wanting.items() if path is None}
        if find_spec("torchmetrics") is None:  # whose mathematics the distance is
            found.setdefault("frechet_stlpips", f'pip install "{frechet.PACKAGE}"')
        return found


@dataclass(frozen=True)
class Panel:
    """Frozen networks; None: its file was not named."""

    stlpips: STLPIPS | None = None  # by AlexNet
    stlpips_vgg: STLPIPS | None = None  # for the Fréchet distance
    recognition: Recognition | None = None
    estimator: Estimator | None = None
    lpips: LPIPS | None = None
    inception: Inception | None = None


def load_panel(files: JudgeFiles, device: str) -> Panel:
    """WeightsError where a file holds something else, InputError where a package is missing. Faces are judged on the CPU."""
    panel = Panel(
        None if files.stlpips is None else load_stlpips(files.stlpips, "alex").to(device),
        None if files.stlpips is None else load_stlpips(files.stlpips, "vgg").to(device),
        None if files.identity is None else load_recognition(files.identity),
        None if files.landmarker is None else load_estimator(files.landmarker),
        None if files.lpips is None else load_lpips(files.lpips),
        None if files.inception is None else load_inception(files.inception),
    )
    for judge in (panel.lpips, panel.inception):
        if judge is not None:
            judge.model.to(device)
    return panel


def mark(path: Path) -> str:
    """The SHA-256 of a file, or of everything in a folder that the judges read of it."""
    if path.is_file():
        return sha256(path)
    inside = [file for file in (path / DATA, path / "model" / DATA, *sorted(path.rglob("*_shift_tolerant.pth"))) if file.is_file()]
    return " ".join(sha256(file) for file in inside)
