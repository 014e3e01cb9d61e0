"""The batch of a step: portraits, their driving clips, timesteps and noise, all determined by (seed, step) alone.

So a resumed run draws what an uninterrupted one would, and n processes draw together what one would draw.
"""

import logging
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open

from ..animation.mapping import map_geometry
from ..animation.retargeting import driven_keypoints
from ..checkpoint import Header, read_header
from ..diffusion.conditional import training_mask
from ..errors import InputError, WeightsError
from ..motion_map import MotionMaps
from ..vae import VAE
from ..vid2vid import FaceVid2Vid
from ..vid2vid.keypoints import transform
from ..vid2vid.warp import WarpingNetwork
from .data.images import crop_keypoints, crop_photo, draw_crops
from .data.packed import unpack
from .data.prepare import weights_fingerprint
from .data.sample import KINDS, Sample, load_frames, load_sample
from .encoders import Encoders, Row, encode_rows
from .stages import Shape, Stage

log = logging.getLogger(__name__)

LISTED = 5  # damaged files that a warning names
WARPED_AT_ONCE = 32  # frames that go through W together on a CPU
WARPED_ON_A_GPU = 256


# Which samples there are


@dataclass(frozen=True)
class Index:
    """The headers of a folder of samples."""

    paths: tuple[Path, ...]
    frames: torch.Tensor  # (N,) T of each
    portraits: torch.Tensor  # (N,) P of each
    video: torch.Tensor  # (N,) bool
    size: int  # px, side of every frame
    vid2vid: str  # fingerprint of the Face Vid2vid that they were made with
    photo: torch.Tensor  # (N,) bool, whether it is a photograph, of which a step draws crops
    vae: str  # fingerprint of the VAE that they were made with; "" in older files
    portrait_frames: dict[int, torch.Tensor]  # numbers of the frames that can be the portrait, where these are not all

    def usable(self, shape: Shape) -> torch.Tensor:
        """Numbers of the samples that can give such clips. InputError where there is none."""
        enough = (self.frames >= max(2, shape.reach)) | self.photo
        if shape.frames > 1:
            enough = enough & self.video
        found = torch.nonzero(enough)[:, 0]
        if not len(found):
            raise InputError(
                f"No sample can give clips of {shape.frames} frames with a stride of {shape.stride}: it takes a video of "
                f"{max(2, shape.reach)} frames, and the longest of {len(self.paths)} samples has {int(self.frames.max())}."
            )
        return found

    def portrait_frame(self, sample: int, portrait: int) -> int:
        """The frame of the sample's portrait number `portrait`."""
        return int(self.portrait_frames[sample][portrait]) if sample in self.portrait_frames else portrait


def read_index(folder: Path, size: int) -> Index:
    """Every sample below a folder, by name; damaged files are left out and counted in a warning.

    InputError where there is none, or one is of another size than size px.
    """
    paths = tuple(sorted(path for path in folder.rglob("*.safetensors") if not path.name.startswith(".")))
    if not paths:
        raise InputError(f"{folder} holds no training sample: make them with `python -m realportrait_core.train.data`.")
    paths, headers = readable(paths)
    rows, portrait_frames = [], {}
    made_with = {"Face Vid2vid": set(), "VAE": set()}
    for number, (path, header) in enumerate(zip(paths, headers)):
        if header.metadata.get("kind") not in KINDS or "latents" not in header.shapes:
            raise InputError(f"{path} is not a training sample.")
        if header.metadata["size"] != str(size):
            raise InputError(f"{path} has frames of {header.metadata['size']} px; the network is trained at {size} px.")
        made_with["Face Vid2vid"].add(header.metadata.get("vid2vid", ""))
        if "vae" in header.metadata:  # not in older files
            made_with["VAE"].add(header.metadata["vae"])
        frames, portraits = header.shapes["latents"][0], header.shapes["portraits"][0]
        video = header.metadata["kind"] == "video"
        rows.append((frames, portraits, video, "photo" in header.shapes))
        if video and portraits < frames:
            with safe_open(path, "pt") as file:
                portrait_frames[number] = file.get_tensor("portraits")
    for network, found in made_with.items():
        if len(found) > 1:
            raise InputError(
                f"The samples in {folder} were made with {len(found)} different {network} files; use samples made with one."
            )
    frames, portraits, video, photo = (torch.tensor(column) for column in zip(*rows))
    vid2vid, vae = made_with["Face Vid2vid"].pop(), next(iter(made_with["VAE"]), "")
    return Index(paths, frames, portraits, video.bool(), size, vid2vid, photo.bool(), vae, portrait_frames)


def readable(paths: tuple[Path, ...]) -> tuple[tuple[Path, ...], list[Header]]:
    """The files that are whole, and their headers. InputError where none is."""
    headers, damaged = {}, []
    for path in paths:
        try:
            headers[path] = read_header(path)
        except WeightsError as error:
            damaged.append(str(error))
    if not headers:
        raise InputError(f"All {len(paths)} training samples are damaged: {damaged[0]} Make them anew.")
    if damaged:
        log.warning("%d of %d training samples are damaged and left out: %s", len(damaged), len(paths), " ".join(damaged[:LISTED]))
    return tuple(headers), list(headers.values())


def encoders_for(
    index: Index, stage: Stage, vid2vid: FaceVid2Vid, vae: VAE | None, precision: torch.dtype, device: torch.device
) -> Encoders:
    """The encoders that the samples need in a stage, with the VAE for photographs alone.

    InputError where photographs are drawn and the VAE is missing, or another than they were prepared with.
    """
    appearance, vae = vid2vid.appearance.to(device), None if vae is None else vae.to(device)
    if not bool(index.photo.any()) or all(shape.frames > 1 for shape in stage.shapes):
        return Encoders(appearance, None, precision)
    if vae is None:
        raise InputError(
            f"{int(index.photo.sum())} of the samples are photographs, of which every step encodes a new crop: give the VAE that "
            "they were made with by --vae."
        )
    if weights_fingerprint(vae) != index.vae:
        raise InputError("The samples were made with another VAE than that of --vae: give that one, or make them anew.")
    return Encoders(appearance, vae, precision)


# What a step draws


@dataclass(frozen=True)
class Item:
    """A portrait and its driving clips."""

    sample: int
    portrait: int  # number among the sample's portraits
    frames: torch.Tensor  # (N, L) frames of the sample, from 0; of a photograph the numbers of its random crops, from 1
    t: torch.Tensor  # (N, D) timestep of each noise of each clip
    conditional: torch.Tensor  # (N, D, L) bool
    seed: int  # of its noise and crops
    unmoved: torch.Tensor | None = None  # (N, D) bool, noises that are denoised without the motion; None: none is


def generator(seed: int, step: int, part: int = 0) -> torch.Generator:
    """Streams that do not repeat over steps and parts."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4099 + part)


def sample_timesteps(
    count: int, steps: int, source: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """`count` timesteps spread evenly over 0 .. steps - 1, shuffled: less noise in the loss than independent draws."""
    positions = (torch.arange(count, device=device) + torch.rand(count, generator=source, device=device)) / count
    return (positions[torch.randperm(count, generator=source, device=device)] * steps).long().clamp(max=steps - 1)


def draw(index: Index, stage: Stage, seed: int, step: int, timesteps: int) -> list[Item]:
    """The items of step `step`, for all processes together."""
    shape = stage.shapes[step % len(stage.shapes)]
    usable = index.usable(shape)
    source = generator(seed, step)
    count = (shape.portraits, shape.clips, shape.noises)
    times = sample_timesteps(prod(count), timesteps, source).view(count)
    chosen = usable[torch.randint(len(usable), (shape.portraits,), generator=source)]
    return [
        draw_item(index, shape, sample, times[i], generator(seed, step, 1 + i), stage.unmoved)
        for i, sample in enumerate(chosen.tolist())
    ]


def draw_item(index: Index, shape: Shape, sample: int, t: torch.Tensor, source: torch.Generator, unmoved: float = 0.0) -> Item:
    """The portrait: any frame of the sample with a face. Single driving frames: any but the portrait's own, since copying it would
    be a shortcut; of a photograph, new crops. Clips: consecutive frames from a random start, the portrait among them or not."""
    total = int(index.frames[sample])
    portrait = int(torch.randint(int(index.portraits[sample]), (), generator=source))
    if shape.frames == 1:
        own = index.portrait_frame(sample, portrait)
        crops = torch.arange(1, shape.clips + 1)
        others = crops if index.photo[sample] else torch.tensor([i for i in range(total) if i != own])
        order = others[torch.randperm(len(others), generator=source)]
        frames = order.repeat(-(-shape.clips // len(order)))[: shape.clips, None]  # (N, 1)
    else:
        starts = torch.randint(total - shape.reach + 1, (shape.clips, 1), generator=source)
        frames = starts + shape.stride * torch.arange(shape.frames)  # (N, L)
    conditional = training_mask(shape.clips * shape.noises, shape.frames, source).unflatten(0, (shape.clips, shape.noises))
    seed = int(torch.randint(2**62, (), generator=source))
    left_out = torch.rand(t.shape, generator=source) < unmoved
    return Item(sample, portrait, frames, t, conditional, seed, left_out)


# What the network receives


@dataclass(frozen=True)
class Batch:
    """R portraits with N clips of L frames each, and D noises for every clip. Keypoints are in the portraits' crops."""

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
    unmoved: torch.Tensor | None = None  # (R N D,) bool, noises that are denoised without the motion, for guidance

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(value.to(device) if isinstance(value, torch.Tensor) else value for value in vars(self).values()))

    def __len__(self) -> int:
        return len(self.z_r)

    def per_noise(self, clips: torch.Tensor) -> torch.Tensor:
        """Values of clips (R N, ...), repeated for each of their noises (R N D, ...)."""
        return clips.repeat_interleave(len(self.noise) // len(self.z), 0)


def load(index: Index, items: list[Item], encoders: Encoders | None = None) -> Batch:
    """Loads the items' samples. The motion is relative, with the portrait's own frame as the neutral one, so a map shows exactly
    the motion of the driving frame. encoders: needed for samples that keep pictures (data/sample.py)."""
    return complete([load_item(index, item) for item in items], index.size, encoders)


def load_item(index: Index, item: Item) -> Row:
    """A row of the batch, in which faces and crops may still be pictures."""
    path, (clips, length) = index.paths[item.sample], item.frames.shape
    is_photo = bool(index.photo[item.sample])
    if is_photo:
        sample = load_sample(path)
    else:
        own = index.portrait_frame(item.sample, item.portrait)
        sample = load_frames(path, item.portrait, own, item.frames.flatten())
    source = torch.Generator().manual_seed(item.seed)
    noise = torch.randn(clips * item.t.shape[1], length, *sample.latents.shape[1:], generator=source)
    if not is_photo:
        frames = torch.arange(1, clips * length + 1).view(clips, length)  # of the part that was loaded
        keypoints = sample.keypoints(0, frames.flatten())  # the portrait's own frame first
        driving = driving_latents(sample, frames, source)
    else:
        crops = draw_crops(sample, int(item.frames.max()), source)[item.frames.flatten() - 1]
        keypoints = crop_keypoints(sample, crops)
        pictures = crop_photo(sample, crops)
        shape = (len(crops), *sample.latents.shape[1:])
        crop_noise = torch.randn(shape, generator=source) if sample.from_posterior else torch.empty(0)
        driving = {"crops": pictures, "crop_noise": crop_noise, "pictures": pictures.unflatten(0, (clips, length))}
    x_d = driven_keypoints(keypoints, "relative", 1.0, 1.0, neutral=0)
    geometry = map_geometry(keypoints, x_d, sample.size, "whole")
    unmoved = torch.zeros(item.t.shape, dtype=torch.bool) if item.unmoved is None else item.unmoved
    portrait = {"portrait_face": unpack(sample.faces[0])} if sample.f is None else {"f_r": keypoints.feature[0]}
    return (
        driving
        | portrait
        | {
            "unmoved": unmoved.flatten(),
            "z_r": sample.latents[0].float(),
            "noise": noise,
            "t": item.t.flatten()[:, None].expand(-1, length),
            "conditional": item.conditional.flatten(0, 1),
            "x_s": transform(keypoints.portrait)[0],
            "x_d": x_d[1:],
            "frame_to_crop": geometry.frame_to_crop.float(),
            "face": geometry.face[1:].float(),
            "own_face": geometry.portrait_face.float(),
        }
    )


def driving_latents(sample: Sample, frames: torch.Tensor, source: torch.Generator) -> Row:
    """Latents of frames (N, L), drawn from the posterior where the sample has its deviations; and pictures where it keeps them."""
    z = sample.latents[frames].float()  # (N, L, 4, h, w)
    if sample.from_posterior:
        z = z + sample.deviations[frames].float() * torch.randn(z.shape, generator=source)
    return {"z": z} | ({} if sample.pictures is None else {"pictures": sample.pictures[frames]})


def complete(rows: list[Row], size: int, encoders: Encoders | None) -> Batch:
    """Rows of load_item as a batch, on the encoders' device."""
    rows = encode_rows(rows, encoders)
    device = torch.device("cpu") if encoders is None else encoders.device
    shared = set.intersection(*(set(row) for row in rows))  # pictures only where all samples keep them
    joined = {name: torch.stack([row[name].to(device) for row in rows]) for name in rows[0] if name in shared}
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
    frame_to_crop = batch.frame_to_crop.repeat_interleave(frames, 0)
    driven = MotionMaps(
        f[:, :-1].flatten(0, 1), frame_to_crop, batch.face.flatten(0, 1), batch.size, batch.size, everywhere=on_a_gpu
    )
    return driven, MotionMaps(f[:, -1], batch.frame_to_crop, batch.own_face, batch.size, batch.size, everywhere=on_a_gpu)
