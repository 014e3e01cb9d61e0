"""One training sample: what the frozen networks computed of a piece of video, or of a photograph.

The DiT learns from latents and motion maps alone, so what comes before them is computed once and kept in one safetensors file a
sample. The maps of any portrait and driving frame of it follow by the code that users run. Two things are kept as pictures,
because a step draws among more of them than could be stored: the face crop of every frame that can be the portrait, on which a
step runs F, and a photograph, of which a step encodes a new random crop (images.py).
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ...animation.keypoints import Keypoints
from ...checkpoint import check_finite, read_header, read_safetensors, save
from ...errors import InputError
from ...vid2vid.keypoints import Pose

KINDS = ("video", "image")
TENSORS = ("latents", "portraits", "portrait_crops", "points", "driver_crop")
OPTIONAL = ("f", "deviations", "pictures", "photo")


@dataclass(frozen=True)
class Sample:
    """T frames of one face, on a square of size px that does not move; P of them can be the portrait.

    video: T consecutive frames. image: a photograph alone, of which every step draws crops (T = P = 1 and `photo`); or, in
    older files, frame 0 is the picture and frame 1 one random crop of it (P = 1).
    """

    kind: str
    size: int  # px, side of the frames
    latents: torch.Tensor  # (T, 4, size / 8, size / 8) float16, the posterior's mean where there is one, scaled
    portraits: torch.Tensor  # (P,) int64, numbers of the frames that can be the portrait
    f: torch.Tensor | None  # (P, C, D, h, w) float16, f_r of each portrait; or faces
    portrait_poses: Pose  # P, each seen in its own portrait crop
    portrait_crops: torch.Tensor  # (P, 3, 3) float64, frame px -> crop px
    poses: Pose  # T, all seen in the driver's crop
    points: torch.Tensor  # (T, 5, 2) float32, px of the frame
    driver_crop: torch.Tensor  # (3, 3) float64, frame px -> crop px
    pictures: torch.Tensor | None = None  # (T, 3, size, size) uint8, for trainings that decode; None: not kept
    faces: tuple[torch.Tensor, ...] | None = None  # P face crops that F takes, packed; or f
    deviations: torch.Tensor | None = None  # as latents, the posterior's standard deviation; None: a latent is its mean
    photo: torch.Tensor | None = None  # the photograph in frame 0 at a resolution of its own, packed
    smallest: float = 1.0  # least side of a crop of the photo, in sides of the frame
    from_posterior: bool = False  # whether each step samples the latents of driving frames from the posterior

    def __post_init__(self):
        frames, kept = len(self.latents), len(self.portraits)
        counts = {
            "f": kept,
            "faces": kept,
            "portrait_poses": kept,
            "portrait_crops": kept,
            "poses": frames,
            "points": frames,
            "deviations": frames,
        }
        lengths = {name: len(getattr(self, name)) for name in counts if getattr(self, name) is not None}
        wrong = [f"{name} has {lengths[name]}, not {counts[name]}" for name in lengths if lengths[name] != counts[name]]
        if (self.f is None) == (self.faces is None):
            wrong.append("either f or faces must be there")
        if self.kind not in KINDS or wrong or not kept or int(self.portraits.max()) >= frames:
            raise InputError(
                f"A sample of kind {self.kind!r} with {frames} frames and the portraits {self.portraits.tolist()} does not fit: "
                f"{'; '.join(wrong)}."
            )

    def __len__(self) -> int:
        return len(self.latents)

    def keypoints(self, portrait: int, frames: torch.Tensor) -> Keypoints:
        """The portrait number `portrait` of `portraits` and the driving frames (N,), as drive_keypoints takes them.

        The portrait's own frame comes first, then the N: it is the neutral frame of relative motion.
        """
        own = int(self.portraits[portrait])
        chosen = torch.cat([torch.tensor([own]), frames])
        return self.driven(portrait, self.poses[chosen], self.points[chosen])

    def driven(self, portrait: int, poses: Pose, points: torch.Tensor) -> Keypoints:
        """The portrait number `portrait` of `portraits`, and driving frames by their poses N and points (N, 5, 2) px.

        The feature is empty where the sample keeps faces instead.
        """
        return Keypoints(
            portrait=self.portrait_poses[portrait : portrait + 1],
            driver=poses,
            feature=torch.empty(0) if self.f is None else self.f[portrait : portrait + 1].float(),
            portrait_crop=self.portrait_crops[portrait],
            driver_crop=self.driver_crop,
            portrait_points=self.points[int(self.portraits[portrait])],
            driver_points=points,
            present=torch.ones(len(points), dtype=torch.bool),
            portrait_size=(self.size, self.size),
            driver_size=(self.size, self.size),
        )


def save_sample(path: Path, sample: Sample, note: dict[str, str]) -> None:
    """One safetensors file; `note` (source, measured numbers, fingerprints) goes into its metadata."""
    tensors = {name: getattr(sample, name) for name in (*TENSORS, *OPTIONAL) if getattr(sample, name) is not None}
    if sample.faces is not None:
        tensors |= {"faces": torch.cat(sample.faces), "face_bytes": torch.tensor([len(face) for face in sample.faces])}
    for role in ("poses", "portrait_poses"):
        tensors |= {f"{role}.{field.name}": getattr(getattr(sample, role), field.name) for field in fields(Pose)}
    metadata = {"kind": sample.kind, "size": str(sample.size)}
    if sample.photo is not None:
        metadata["smallest"] = repr(sample.smallest)
    if sample.from_posterior:
        metadata["draws"] = "yes"
    save(path, {name: value.clone() for name, value in tensors.items()}, metadata | note)


def load_sample(path: Path) -> Sample:
    """Raises InputError where the file is not a whole sample."""
    return sample_of(path, *read_safetensors(path))


def load_frames(path: Path, portrait: int, own: int, frames: torch.Tensor) -> Sample:
    """Of a sample file the portrait number `portrait` alone, which is frame `own`, and driving frames (N,): no more is read.

    In the returned sample they are the frames 0 and 1 .. N. Raises InputError where the file is not a whole sample.
    """
    header, rows = read_header(path), [own, *frames.tolist()]

    def read(file, name: str) -> torch.Tensor:
        if name in ("portraits", "driver_crop", "face_bytes"):
            return file.get_tensor(name)
        part = file.get_slice(name)
        if name == "faces":
            sizes = file.get_tensor("face_bytes").tolist()
            start = sum(sizes[:portrait])
            return part[start : start + sizes[portrait]]
        if name == "f" or name.startswith("portrait_"):
            return part[portrait : portrait + 1]
        return torch.cat([part[row : row + 1] for row in rows])

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: read(file, name) for name in header.shapes}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as a training sample: {error}.") from error
    if int(tensors["portraits"][portrait]) != own:
        raise InputError(f"{path} has no portrait number {portrait} in frame {own}: it was changed meanwhile.")
    tensors["portraits"] = torch.tensor([0])
    if "face_bytes" in tensors:
        tensors["face_bytes"] = tensors["face_bytes"][portrait : portrait + 1]
    check_finite(tensors, str(path))
    return sample_of(path, tensors, header.metadata)


def sample_of(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Sample:
    """The tensors of a file as a sample. Raises InputError where some are missing."""
    missing = [name for name in TENSORS if name not in tensors]
    if not {"f", "faces"} & tensors.keys():
        missing.append("f")
    if missing or metadata.get("kind") not in KINDS:
        raise InputError(f"{path} is not a training sample: {', '.join(missing) or 'its kind'} is missing.")
    poses = {role: Pose(*(tensors[f"{role}.{field.name}"] for field in fields(Pose))) for role in ("poses", "portrait_poses")}
    faces = tensors["faces"].split(tensors["face_bytes"].tolist()) if "faces" in tensors else None
    return Sample(
        metadata["kind"],
        int(metadata["size"]),
        **{name: tensors[name] for name in TENSORS},
        **poses,
        **{name: tensors.get(name) for name in OPTIONAL},
        faces=faces,
        smallest=float(metadata.get("smallest", 1.0)),
        from_posterior=metadata.get("draws") == "yes",
    )
