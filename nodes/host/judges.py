"""Networks that judge a result: files that a user puts into models/realportrait/judges; none comes with the pack.

They are found by their names in that folder alone, loaded for a run, and gone with it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import comfy.model_patcher
import folder_paths
from torch import Tensor, nn

from ...realportrait_core.errors import RealPortraitError
from ...realportrait_core.eval.clip.report import ClipJudges
from ...realportrait_core.eval.judges.estimators import load_estimator
from ...realportrait_core.eval.judges.identity import MANIFEST, load_embedding
from ...realportrait_core.eval.judges.likeness import likeness
from ...realportrait_core.eval.judges.recognition import Recognition, load_recognition
from ...realportrait_core.face.detect import MODEL_NAME, FaceDetector
from ...realportrait_core.long.judge import Identity
from ...realportrait_core.stlpips import load_stlpips
from .folders import FOLDER, detector_path, stamp
from .run import loaded, small_net_devices

T = TypeVar("T")

JUDGES = "judges"
WHERE = f"models/{FOLDER}/{JUDGES}"
# Figure -> how to get what it needs.
MISSING = {
    "identity similarity": f"put ArcFace or SFace as .onnx into {WHERE}, or there a folder face-api with the files of "
    "model/ in npm's @vladmandic/face-api (6.5 MB, MIT).",
    "head pose, expression and mouth by landmarks": f"put MediaPipe's face_landmarker.task (3.8 MB, Apache-2.0) into {WHERE}.",
    "ST-LPIPS": f"put the wheel of PyPI's stlpips-pytorch 0.0.2 (64 MB, BSD) into {WHERE}.",
}


def judge_files() -> dict[str, list[Path]]:
    """The files of each figure, those first that are taken first."""
    folders = [Path(path) / JUDGES for path in folder_paths.get_folder_paths(FOLDER)]

    def those(pattern: str) -> list[Path]:
        return [path for folder in folders for path in sorted(folder.glob(pattern))]

    manifests = [*those(MANIFEST), *those(f"*/{MANIFEST}"), *those(f"*/model/{MANIFEST}")]
    return {
        "identity similarity": [*those("*.onnx"), *(file.parent for file in manifests)],
        "head pose, expression and mouth by landmarks": those("face_landmarker.task"),
        "ST-LPIPS": those("stlpips_pytorch-*.whl"),
    }


def stamps() -> list:
    """Changes when a file is added, replaced or removed."""
    return [stamp(file) for files in judge_files().values() for file in files]


def first_of(figure: str, files: list[Path], load: Callable[[Path], T]) -> tuple[T | None, str]:
    """What is in the first file that can be loaded, or why the figure is left out."""
    reasons = []
    for file in files:
        try:
            return load(file), ""
        except RealPortraitError as error:
            reasons.append(str(error))
    return None, " ".join(reasons) or MISSING[figure]


def likeness_to(square: Tensor) -> tuple[Identity | None, str]:
    """What compares frames with the portrait's square (1, S, S, 3), or why none can: "Identity is not measured: ...".

    The network stays on the CPU: 10 ms a face.
    """
    figure = "identity similarity"
    network, reason = first_of(figure, judge_files()[figure], load_recognition)
    if network is not None:
        try:
            return likeness(network, FaceDetector(detector_path(MODEL_NAME)), square), ""
        except RealPortraitError as error:
            reason = str(error)
    return None, f"Identity is not measured: {reason}"


def load_judges(with_truth: bool) -> tuple[ClipJudges, dict[str, str], list]:
    """The networks, why figures are left out, and the patchers that keep the networks on their device."""
    files, left_out, patchers = judge_files(), {}, []

    def first(figure: str, load: Callable[[Path], T]) -> T | None:
        network, reason = first_of(figure, files[figure], load)
        if reason:
            left_out[figure] = reason
        return network

    def placed(network: nn.Module) -> nn.Module:
        load, offload = small_net_devices()
        patchers.append(comfy.model_patcher.ModelPatcher(network, load_device=load, offload_device=offload))
        return loaded(patchers[-1])

    def recognition(file: Path) -> Recognition:
        return load_recognition(file) if file.suffix == ".onnx" else Recognition("face-api", placed(load_embedding(file)).embed)

    judges = ClipJudges(
        first("identity similarity", recognition),
        first("head pose, expression and mouth by landmarks", load_estimator),
        first("ST-LPIPS", lambda file: placed(load_stlpips(file))) if with_truth else None,
        small_net_devices()[0],
    )
    return judges, left_out, patchers
