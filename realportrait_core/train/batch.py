"""What a step learns from: portraits, their driving clips, times and noise, all decided by (seed, step) alone.

So a resumed run draws what an uninterrupted one would, and n processes draw together what one would draw.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from ..animation.mapping import map_geometry
from ..animation.retargeting import driven_keypoints
from ..checkpoint import read_header
from ..diffusion.conditional import training_mask
from ..errors import InputError
from ..motion_map import MotionMaps
from ..vid2vid.keypoints import transform
from ..vid2vid.warp import WarpingNetwork
from .data.sample import KINDS, load_sample
from .stages import Shape, Stage

log = logging.getLogger(__name__)

READERS = 4  # threads that read samples ahead of the step
WARPED_AT_ONCE = 32  # frames that go through W together on a CPU
WARPED_ON_A_GPU = 256


# Which samples there are


@dataclass(frozen=True)
class Index:
    """What the headers of a folder of samples say."""

    paths: tuple[Path, ...]
    frames: torch.Tensor  # (N,) T of each
    portraits: torch.Tensor  # (N,) P of each
    video: torch.Tensor  # (N,) bool
    size: int  # px, side of every frame
    vid2vid: str  # fingerprint of the Face Vid2vid that they were made with

    def usable(self, shape: Shape) -> torch.Tensor:
        """Numbers of the samples that can give such clips. InputError where there is none."""
        enough = self.frames >= max(2, shape.reach)
        if shape.frames > 1:
            enough = enough & self.video
        found = torch.nonzero(enough)[:, 0]
        if not len(found):
            raise InputError(
                f"No sample can give clips of {shape.frames} frames with a stride of {shape.stride}: it takes a video of "
                f"{max(2, shape.reach)} frames, and the longest of {len(self.paths)} samples has {int(self.frames.max())}."
            )
        return found


def read_index(folder: Path, size: int) -> Index:
    """Every sample below a folder, by name. InputError where there is none, or one is of another size than size px."""
    paths = tuple(sorted(path for path in folder.rglob("*.safetensors") if not path.name.startswith(".")))
    if not paths:
        raise InputError(f"{folder} holds no training sample: make them with `python -m realportrait_core.train.data`.")
    rows, made_with = [], set()
    for path in paths:
        header = read_header(path)
        if header.metadata.get("kind") not in KINDS or "latents" not in header.shapes:
            raise InputError(f"{path} is not a training sample.")
        if header.metadata["size"] != str(size):
            raise InputError(f"{path} has frames of {header.metadata['size']} px; the network is trained at {size} px.")
        made_with.add(header.metadata.get("vid2vid", ""))
        rows.append((header.shapes["latents"][0], header.shapes["f"][0], header.metadata["kind"] == "video"))
    if len(made_with) > 1:
        raise InputError(f"The samples in {folder} were made with {len(made_with)} different Face Vid2vid; they must be of one.")
    frames, portraits, video = (torch.tensor(column) for column in zip(*rows))
    return Index(paths, frames, portraits, video.bool(), size, made_with.pop())


# What a step draws


@dataclass(frozen=True)
class Item:
    """A portrait and its driving clips."""

    sample: int
    portrait: int  # place in the sample's portraits
    frames: torch.Tensor  # (N, L) of the sample
    t: torch.Tensor  # (N, D) timestep of each draw of each clip
    conditional: torch.Tensor  # (N, D, L) bool
    seed: int  # of its noise
    unmoved: torch.Tensor | None = None  # (N, D) bool, draws without the motion; None: all have it


def generator(seed: int, step: int, part: int = 0) -> torch.Generator:
    """Streams that do not repeat over steps and parts."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4099 + part)


def stratified_times(
    count: int, steps: int, source: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """`count` timesteps spread evenly over 0 .. steps - 1, shuffled: less noise in the loss than independent draws."""
    places = (torch.arange(count, device=device) + torch.rand(count, generator=source, device=device)) / count
    return (places[torch.randperm(count, generator=source, device=device)] * steps).long().clamp(max=steps - 1)


def draw(index: Index, stage: Stage, seed: int, step: int, timesteps: int) -> list[Item]:
    """Step `step` of a stage: its portraits, those of all processes."""
    shape = stage.shapes[step % len(stage.shapes)]
    usable = index.usable(shape)
    source = generator(seed, step)
    count = (shape.portraits, shape.clips, shape.draws)
    times = stratified_times(prod(count), timesteps, source).view(count)
    chosen = usable[torch.randint(len(usable), (shape.portraits,), generator=source)]
    return [
        draw_item(index, shape, sample, times[i], generator(seed, step, 1 + i), stage.unmoved)
        for i, sample in enumerate(chosen.tolist())
    ]


def draw_item(index: Index, shape: Shape, sample: int, t: torch.Tensor, source: torch.Generator, unmoved: float = 0.0) -> Item:
    """Single frames: any but frame 0 of an image, whose portrait that is; clips: a random start."""
    total = int(index.frames[sample])
    portrait = int(torch.randint(int(index.portraits[sample]), (), generator=source))
    if shape.frames == 1:
        first = 0 if index.video[sample] else 1  # copying a picture onto itself would be a shortcut
        order = torch.randperm(total - first, generator=source) + first
        frames = order.repeat(-(-shape.clips // len(order)))[: shape.clips, None]  # (N, 1)
    else:
        starts = torch.randint(total - shape.reach + 1, (shape.clips, 1), generator=source)
        frames = starts + shape.stride * torch.arange(shape.frames)  # (N, L)
    conditional = training_mask(shape.clips * shape.draws, shape.frames, source).unflatten(0, (shape.clips, shape.draws))
    seed = int(torch.randint(2**62, (), generator=source))
    left_out = torch.rand(t.shape, generator=source) < unmoved
    return Item(sample, portrait, frames, t, conditional, seed, left_out)


# What the network reads


@dataclass(frozen=True)
class Batch:
    """R portraits with N clips of L frames each, and D draws of every clip. Keypoints are in the portraits' crops."""

    z_r: torch.Tensor  # (R, 4, h, w)
    z: torch.Tensor  # (R N, L, 4, h, w)
    noise: torch.Tensor  # (R N D, L, 4, h, w)
    t: torch.Tensor  # (R N D, L)
    conditional: torch.Tensor  # (R N D, L) bool
    f_r: torch.Tensor  # (R, C, D, h', w')
    x_s: torch.Tensor  # (R, K, 3)
    x_d: torch.Tensor  # (R, N L, K, 3)
    frame_to_crop: torch.Tensor  # (R, 3, 3) frame px -> crop px
    face: torch.Tensor  # (R, N L, 2, 3)
    own_face: torch.Tensor  # (R, 2, 3)
    size: int  # px, side of the frames
    pictures: torch.Tensor | None = None  # (R N, L, 3, S, S) uint8, where the samples keep them
    unmoved: torch.Tensor | None = None  # (R N D,) bool, draws without the motion, by which guidance is learned

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(value.to(device) if isinstance(value, torch.Tensor) else value for value in vars(self).values()))

    def __len__(self) -> int:
        return len(self.z_r)

    def drawn(self, clips: torch.Tensor) -> torch.Tensor:
        """What is the same for every draw of a clip (R N, ...), once for each draw (R N D, ...)."""
        return clips.repeat_interleave(len(self.noise) // len(self.z), 0)


def load(index: Index, items: list[Item]) -> Batch:
    """Reads the items' samples. The motion is relative, with the portrait's own frame as the neutral one: its map says exactly
    what the driver does."""
    return collate([load_item(index, item) for item in items], index.size)


def load_item(index: Index, item: Item) -> dict[str, torch.Tensor]:
    sample = load_sample(index.paths[item.sample])
    clips, length = item.frames.shape
    keypoints = sample.keypoints(item.portrait, item.frames.flatten())  # the portrait's own frame first
    x_d = driven_keypoints(keypoints, "relative", 1.0, 1.0, neutral=0)
    place = map_geometry(keypoints, x_d, sample.size, "whole")
    z = sample.latents[item.frames].float()  # (N, L, 4, h, w)
    draws = item.t.shape[1]
    source = torch.Generator().manual_seed(item.seed)
    unmoved = torch.zeros(item.t.shape, dtype=torch.bool) if item.unmoved is None else item.unmoved
    kept = {} if sample.pictures is None else {"pictures": sample.pictures[item.frames]}
    return kept | {
        "unmoved": unmoved.flatten(),
        "z_r": sample.latents[int(sample.portraits[item.portrait])].float(),
        "z": z,
        "noise": torch.randn(clips * draws, *z.shape[1:], generator=source),
        "t": item.t.flatten()[:, None].expand(-1, length),
        "conditional": item.conditional.flatten(0, 1),
        "f_r": sample.f[item.portrait].float(),
        "x_s": transform(keypoints.portrait)[0],
        "x_d": x_d[1:],
        "frame_to_crop": place.frame_to_crop.float(),
        "face": place.face[1:].float(),
        "own_face": place.portrait_face.float(),
    }


def collate(rows: list[dict[str, torch.Tensor]], size: int) -> Batch:
    shared = set.intersection(*(set(row) for row in rows))  # pictures only where all samples keep them
    joined = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name in shared}
    for name in ("z", "noise", "t", "conditional", "unmoved", "pictures"):
        if name in joined:
            joined[name] = joined[name].flatten(0, 1)
    return Batch(**joined, size=size)


@torch.no_grad()
def maps_of(warping: WarpingNetwork, batch: Batch) -> tuple[MotionMaps, MotionMaps]:
    """The driving frames' maps (R N L) and the portraits' own (R), by the frozen W."""
    portraits, frames = batch.x_d.shape[:2]
    x_d = torch.cat([batch.x_d, batch.x_s[:, None]], 1)  # (R, N L + 1, K, 3)

    def every(value: torch.Tensor) -> torch.Tensor:
        return value.repeat_interleave(frames + 1, 0)

    given = every(batch.f_r), x_d.flatten(0, 1), every(batch.x_s), every(warping.compress(batch.f_r))
    on_a_gpu = batch.x_d.device.type not in ("cpu", "mps")
    some = WARPED_ON_A_GPU if on_a_gpu else WARPED_AT_ONCE
    f = torch.cat([warping(*chunk).out for chunk in zip(*(value.split(some) for value in given))])
    f = f.unflatten(0, (portraits, frames + 1))  # (R, N L + 1, C, h, w)
    place = batch.frame_to_crop.repeat_interleave(frames, 0)
    driven = MotionMaps(f[:, :-1].flatten(0, 1), place, batch.face.flatten(0, 1), batch.size, batch.size, everywhere=on_a_gpu)
    return driven, MotionMaps(f[:, -1], batch.frame_to_crop, batch.own_face, batch.size, batch.size, everywhere=on_a_gpu)


# Reading ahead


def batches(index: Index, stage: Stage, seed: int, first: int, timesteps: int, rank: int, size: int) -> Iterator[Batch]:
    """The share of process `rank` of `size` in the steps from `first` on, read one step ahead."""
    with ThreadPoolExecutor(READERS) as pool:

        def begin(step: int):
            return [pool.submit(load_item, index, item) for item in draw(index, stage, seed, step, timesteps)[rank::size]]

        step, reading = first, begin(first)
        while True:
            ahead = begin(step + 1)
            yield collate([row.result() for row in reading], index.size)
            step, reading = step + 1, ahead
