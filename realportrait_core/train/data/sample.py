"""One training sample: what the frozen networks say of a piece of video, or of a picture and a random crop of it.

The DiT learns from latents and motion maps alone, so everything that comes before them is computed once and kept in one
safetensors file a sample. The maps of any portrait and driving frame of it follow by the code that users run.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from ...animation.keypoints import Keypoints
from ...checkpoint import read_safetensors, save
from ...errors import InputError
from ...vid2vid.keypoints import Pose

KINDS = ("video", "image")
TENSORS = ("latents", "portraits", "f", "portrait_crops", "points", "driver_crop")


@dataclass(frozen=True)
class Sample:
    """T frames of one face, on a square of size px that does not move; P of them can be the portrait.

    video: T consecutive frames. image: frame 0 is the picture, frame 1 a random crop of it; P = 1.
    """

    kind: str
    size: int  # px, side of the frames
    latents: torch.Tensor  # (T, 4, size / 8, size / 8) float16, posterior mean, scaled as the DiT reads it
    portraits: torch.Tensor  # (P,) int64, which frames these are
    f: torch.Tensor  # (P, C, D, h, w) float16, f_r
    portrait_poses: Pose  # P, each seen in its own portrait crop
    portrait_crops: torch.Tensor  # (P, 3, 3) float64, frame px -> crop px
    poses: Pose  # T, all seen in the driver's crop
    points: torch.Tensor  # (T, 5, 2) float32, px of the frame
    driver_crop: torch.Tensor  # (3, 3) float64, frame px -> crop px
    pictures: torch.Tensor | None = None  # (T, 3, size, size) uint8, for trainings that decode; None: not kept

    def __post_init__(self):
        frames, kept = len(self.latents), len(self.portraits)
        expected = {"f": kept, "portrait_poses": kept, "portrait_crops": kept, "poses": frames, "points": frames}
        wrong = [
            f"{name} has {len(getattr(self, name))}, not {count}"
            for name, count in expected.items()
            if len(getattr(self, name)) != count
        ]
        if self.kind not in KINDS or wrong or not kept or int(self.portraits.max()) >= frames:
            raise InputError(
                f"A sample of kind {self.kind!r} with {frames} frames and the portraits {self.portraits.tolist()} does not fit: "
                f"{'; '.join(wrong)}."
            )

    def __len__(self) -> int:
        return len(self.latents)

    def keypoints(self, portrait: int, frames: torch.Tensor) -> Keypoints:
        """The portrait's place `portrait` in `portraits` and the driving frames (N,), as Keypoints.

        The portrait's own frame comes first, then the N: it is the neutral frame of relative motion.
        """
        own = int(self.portraits[portrait])
        chosen = torch.cat([torch.tensor([own]), frames])
        return Keypoints(
            portrait=self.portrait_poses[portrait : portrait + 1],
            driver=Pose(*(getattr(self.poses, field.name)[chosen] for field in fields(Pose))),
            feature=self.f[portrait : portrait + 1].float(),
            portrait_crop=self.portrait_crops[portrait],
            driver_crop=self.driver_crop,
            portrait_points=self.points[own],
            driver_points=self.points[chosen],
            present=torch.ones(len(chosen), dtype=torch.bool),
            portrait_size=(self.size, self.size),
            driver_size=(self.size, self.size),
        )


def save_sample(path: Path, sample: Sample, note: dict[str, str]) -> None:
    """One safetensors file; `note` (source, measured numbers, fingerprints) goes into its metadata."""
    tensors = {name: getattr(sample, name).clone() for name in TENSORS}
    if sample.pictures is not None:
        tensors["pictures"] = sample.pictures.clone()
    for role in ("poses", "portrait_poses"):
        tensors |= {f"{role}.{field.name}": getattr(getattr(sample, role), field.name).clone() for field in fields(Pose)}
    save(path, tensors, {"kind": sample.kind, "size": str(sample.size)} | note)


def load_sample(path: Path) -> Sample:
    """Raises InputError where the file is not a whole sample."""
    tensors, metadata = read_safetensors(path)
    missing = [name for name in TENSORS if name not in tensors]
    if missing or metadata.get("kind") not in KINDS:
        raise InputError(f"{path} is not a training sample: {', '.join(missing) or 'its kind'} is missing.")
    poses = {role: Pose(*(tensors[f"{role}.{field.name}"] for field in fields(Pose))) for role in ("poses", "portrait_poses")}
    return Sample(
        metadata["kind"],
        int(metadata["size"]),
        **{name: tensors[name] for name in TENSORS},
        **poses,
        pictures=tensors.get("pictures"),
    )
