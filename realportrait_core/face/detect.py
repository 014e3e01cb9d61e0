"""YuNet: boxes of the faces in a picture, and five points on each (eyes, nose, mouth corners)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError, WeightsError
from . import yunet
from .resize import resize_levels
from .yunet import MODEL_NAME

SCORE, SCORE_RETRY = 0.6, 0.3  # the second where no face reaches the first: drawings, profile views
NMS_IOU = 0.3
# Long side of the network's input, px. On 8 rendered clips of 256 px against their 3-D truth its points are off by
# 2.1 px at 320, 1.8 px at 512 and 1.8 px at 640; they take 10, 21 and 33 ms a frame on one AVX-512 core.
SIDE_MIN, SIDE_MAX = 512, 640
SIDES_RETRY = (256, 1280)  # tried where no face is found: for one that fills the picture, for one that is tiny in it
STRIP = 2**22  # values of a picture that are converted at once
SMALLEST = 12  # px of the network's input: smaller detections are found in noise


@dataclass(frozen=True)
class Face:
    """One face in pixels of the picture (integer coordinates are pixel centres)."""

    box: torch.Tensor  # (4,) x, y, width, height
    points: torch.Tensor  # (5, 2) image-left eye, image-right eye, nose, left and right mouth corner
    score: float  # 0..1

    @property
    def area(self) -> float:
        """Of the box, in px^2."""
        return float(self.box[2] * self.box[3])


class FaceDetector:
    """YuNet (Wu, Peng, Yu 2023; MIT) on the CPU.

    onnx_path is the file that `python install.py` puts in `models/realportrait/`.
    Raises WeightsError where the file is missing or another one.
    """

    def __init__(self, onnx_path: str | Path):
        self.path = Path(onnx_path)
        if not self.path.is_file():
            raise WeightsError(
                f"The face detector {MODEL_NAME} is missing: looked for {self.path}. Run `python install.py` in the "
                f"RealPortrait folder (it fetches 233 KB, MIT), or copy the file there, or give the face's box by hand."
            )
        self.network = yunet.load(self.path)

    def detect(self, image: torch.Tensor | np.ndarray) -> list[Face]:
        """Faces of one picture (H, W, 3) in [0, 1], or uint8; torch or numpy. From left to right; [] where there is none."""
        image = checked_image(image)  # (H, W, 3) uint8, RGB
        longest = max(image.shape[:2])
        sides = [min(max(longest, SIDE_MIN), SIDE_MAX), SIDES_RETRY[0]]
        if longest > SIDE_MAX:
            sides.append(min(longest, SIDES_RETRY[1]))
        doubtful: list[Face] = []
        for side in sides:
            faces = self._detect_at(image, side / longest)
            sure = [face for face in faces if face.score >= SCORE]
            if sure:
                return sure
            doubtful = doubtful or faces
        return doubtful

    def _detect_at(self, image: np.ndarray, scale: float) -> list[Face]:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        with torch.inference_mode():
            picture = resize_levels(torch.from_numpy(image), height, width).flip(2).permute(2, 0, 1)  # YuNet reads BGR
            rows = yunet.detect(self.network, picture, SCORE_RETRY, NMS_IOU)
        # Half-pixel centres on both sides of the resize.
        stretch = torch.tensor([image.shape[1] / width, image.shape[0] / height])
        faces = []
        for row in rows:  # (15,)
            corner = (row[0:2] + 0.5) * stretch - 0.5
            points = (row[4:14].reshape(5, 2) + 0.5) * stretch - 0.5
            if row[2:4].min() >= SMALLEST:
                faces.append(Face(torch.cat([corner, row[2:4] * stretch]), points, float(row[14])))
        return sorted(faces, key=lambda face: float(face.box[0] + face.box[2] / 2))


def checked_image(image: torch.Tensor | np.ndarray) -> np.ndarray:
    """One picture (H, W, 3), float in [0, 1] or uint8 -> contiguous uint8 numpy, RGB. InputError on anything else."""
    image = torch.as_tensor(image)
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise InputError(f"A picture must be (height, width, 3); this one is {tuple(image.shape)}.")
    if image.dtype == torch.uint8:
        return image.contiguous().cpu().numpy()
    if not image.is_floating_point():
        raise InputError(f"A picture must be floating point in [0, 1] or uint8; this one is {image.dtype}.")
    levels, bad = torch.empty(image.shape, dtype=torch.uint8), 0
    step = max(1, STRIP // image[0].numel())  # rows: a huge picture is not copied in float
    for part, strip in zip(levels.split(step), image.split(step)):
        bad += int((~torch.isfinite(strip)).sum())
        part.copy_((strip.float().clamp(0, 1) * 255).round())
    if bad:
        raise InputError(f"The picture has {bad} values of {image.numel()} that are NaN or infinite.")
    return levels.numpy()
