"""Random batches of clip sets, on their device: crops for the decoder, faces for M, pairs for F, W and G, clips for the DiT; the
same of turned photographs.

Random numbers come from the device's own generator, and nothing here synchronises it with the host.
"""

import torch
import torch.nn.functional as F

from ...animation.keypoints import PUBLIC_KEYPOINT_PX
from ...diffusion.conditional import training_mask
from ...face.crop import crop_roll
from ...vid2vid.appearance import AppearanceExtractor
from ...vid2vid.keypoints import Pose, transform, transform_keypoints
from ...vid2vid.retarget import MotionParameters, relative
from ..batch import Batch, sample_timesteps
from ..stages import Shape
from .clip_sets import ClipSet, RenderedSet
from .crops import crop_batch, inverted, jitter, to_unit
from .head_truth import truth_in_crops
from .motion import jitter_colours
from .photo_supervision import seen_in
from .renderer import Faces, weight_of
from .turned_photos import TurnedPhotos

UNMOVED = 0.12  # share of noises without the motion, for guidance
PHOTOS = 0.3  # share of the decoder's pictures, if there are photographs


def random_indices(most: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Integers 0 .. most - 1."""
    return torch.randint(most, shape, device=device)


def images(data: ClipSet, clips: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) in [0, 1]."""
    return data.frames[clips, frames].float() / 255


def decoder_pictures(data: RenderedSet, count: int, side: int, top: int, left: int) -> torch.Tensor:
    """(count, 3, side, side) in [0, 1], the same crop of frames and, if there are any, of photographs."""
    photos = round(PHOTOS * count) if len(data.photos) else 0
    clips, frames = (
        random_indices(len(data), (count - photos,), data.device),
        random_indices(data.length, (count - photos,), data.device),
    )
    pictures = data.frames[clips, frames]
    if photos:
        pictures = torch.cat([pictures, data.photos[random_indices(len(data.photos), (photos,), data.device)]])
    return pictures[..., top : top + side, left : left + side].float() / 255


def motion_faces(data: RenderedSet, count: int, size: int) -> tuple[torch.Tensor, Pose]:
    """Pairs of frames of one clip, adjacent in the batch, in jittered portrait or clip crops with jittered colours: pictures
    (count, 3, size, size) and their true poses."""
    clips = random_indices(len(data), (count // 2,), data.device).repeat_interleave(2)
    frames = random_indices(data.length, (count,), data.device)
    of_clip = (torch.rand(count // 2, device=data.device) < 0.5).repeat_interleave(2)[:, None, None]
    crops = torch.where(of_clip, data.clip_crops[clips], data.portrait_crops[clips, frames])
    crops = jitter(crops, scale=0.1, shift=0.04, degrees=6.0)
    pictures = crop_batch(images(data, clips, frames), crops, size)
    return jitter_colours(pictures, data.device), truth_in_crops(data.heads, clips, frames, to_unit(crops))[0]


def turned_faces(photos: TurnedPhotos, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs of a photo and its turned version, adjacent in the batch, in crops and colours like those of motion_faces: pictures
    (count, 3, size, size), keypoint positions (count, 26, 2) and rotations (count / 2, 3, 3) for photo_supervision.photos_loss."""
    device, pairs = photos.device, count // 2
    (number, other), of_clip = turned_pairs(photos, pairs), torch.rand(pairs, 1, 1, 1, device=device) < 0.5
    clips, frames = number.repeat_interleave(2), torch.stack([torch.zeros_like(other), other], 1).flatten()
    own = photos.portrait_crops[clips, frames].unflatten(0, (pairs, 2))
    crops = torch.where(of_clip, photos.clip_crops[number][:, None], own).flatten(0, 1)
    crops = jitter(crops, scale=0.1, shift=0.04, degrees=6.0)
    pictures = jitter_colours(crop_batch(images(photos, clips, frames), crops, size), device)
    return pictures, *seen_in(crops, photos.keypoints[clips, frames], photos.rotation[number, other])


def renderer_faces(data: RenderedSet, portraits: int, drivers: int, crop: int, size: int) -> Faces:
    """`portraits` frames, and for each of them `drivers` other frames of its clip; faces of crop px, targets of size px."""
    clips = random_indices(len(data), (portraits,), data.device)
    order = torch.rand(portraits, data.length, device=data.device).argsort(1)
    own, driving = order[:, 0], order[:, 1 : 1 + drivers].flatten()
    crops_r = jitter(data.portrait_crops[clips, own], 0.05, 0.02, 3.0)
    pose_r, surface_r = truth_in_crops(data.heads, clips, own, to_unit(crops_r))
    face_r = crop_batch(images(data, clips, own), crops_r, crop)
    portrait = torch.arange(portraits, device=data.device).repeat_interleave(order[:, 1 : 1 + drivers].shape[1])
    clips = clips[portrait]
    crops_d = jitter(data.clip_crops[clips], 0.05, 0.02, 0.0)
    pose_d, surface_d = truth_in_crops(data.heads, clips, driving, to_unit(crops_d))
    pictures, x_d = images(data, clips, driving), transform(pose_d)
    alpha = F.interpolate(data.alpha[clips, driving][:, None].float() / 255, size=data.size, mode="bilinear")
    target, weight = crop_batch(pictures, crops_d, size), weight_of(pictures, alpha, crops_d, x_d, size)
    return Faces(face_r, transform(pose_r), x_d, surface_r, surface_d, target, weight, portrait)


def photo_faces(photos: TurnedPhotos, pairs: int, crop: int, size: int) -> Faces:
    """Turned photos as portraits, each with the photo itself as its driving face; pixels that the portrait does not show have
    weight 0. Faces of crop px, targets of size px."""
    clips, own = turned_pairs(photos, pairs)
    number = clips * photos.length
    crops_r, crops_d = photos.portrait_crops[clips, own], photos.clip_crops[clips]
    x_s, x_d = transform(photos.portrait_poses[number + own]), transform(photos.driver_poses[number])
    pictures = images(photos, clips, torch.zeros_like(clips))
    share, seen = (
        F.interpolate(quarter[:, None].float() / 255, size=photos.size, mode="bilinear")
        for quarter in (photos.share[clips], photos.seen[clips, own])
    )
    return Faces(
        crop_batch(images(photos, clips, own), crops_r, crop),
        x_s,
        x_d,
        surface_in(crops_r, photos.surface[clips, own], x_s),
        surface_in(crops_d, photos.surface[clips, 0], x_d),
        crop_batch(pictures, crops_d, size),
        weight_of(pictures, share, crops_d, x_d, size) * crop_batch(seen, crops_d, size),
        torch.arange(pairs, device=photos.device),
    )


def turned_pairs(photos: TurnedPhotos, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of random clips, and for each of a frame in which the head is turned: (pairs,) both."""
    return random_indices(len(photos), (pairs,), photos.device), 1 + random_indices(photos.length - 1, (pairs,), photos.device)


def surface_in(crops: torch.Tensor, surface: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Points (B, P, 3) px of a mesh in the units of crops (B, 3, 3), their depth centred on that of the keypoints x (B, K, 3)."""
    unit = to_unit(crops)
    zoom = torch.linalg.vector_norm(unit[:, 0, :2], dim=-1)[:, None, None]  # crop units a px
    flat = surface[..., :2] @ unit[..., :2].mT + unit[:, None, :, 2]
    return torch.cat([flat, zoom * surface[..., 2:] + x[..., 2:].mean(1, keepdim=True)], -1)


# Clips


def dit_batch(
    data: RenderedSet,
    appearance: AppearanceExtractor,
    shape: Shape,
    timesteps: int,
    unmoved: float = UNMOVED,
    pictures: bool = False,
) -> Batch:
    """A step's portraits and clips; the portrait is a random frame of the clip."""
    device = data.device
    clips = random_indices(len(data), (shape.portraits,), device)  # (R,)
    own = random_indices(data.length, (shape.portraits,), device)
    starts = random_indices(data.length - shape.reach + 1, (shape.portraits, shape.clips, 1), device)
    frames = starts + shape.stride * torch.arange(shape.frames, device=device)  # (R, N, L)
    return batch_of(data, appearance, clips, own, frames, *sample_conditions(frames, shape.noises, timesteps, unmoved), pictures)


def photo_batch(
    photos: TurnedPhotos,
    appearance: AppearanceExtractor,
    pairs: int,
    noises: int,
    timesteps: int,
    unmoved: float = UNMOVED,
    pictures: bool = False,
) -> Batch:
    """Single frames: the portrait is a turned photo, its driving frame the photo itself."""
    clips, own = turned_pairs(photos, pairs)
    frames = torch.zeros_like(clips)[:, None, None]  # (R, 1, 1)
    return batch_of(photos, appearance, clips, own, frames, *sample_conditions(frames, noises, timesteps, unmoved), pictures)


def sample_conditions(
    frames: torch.Tensor, noises: int, timesteps: int, unmoved: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """t (B,), conditional (B, L) and unmoved (B,) for `noises` noises of every clip of frames (R, N, L)."""
    portraits, clips, length = frames.shape
    count, device = portraits * clips * noises, frames.device
    t, conditional = sample_timesteps(count, timesteps, device=device), training_mask(count, length, device=device)
    return t, conditional, torch.rand(count, device=device) < unmoved


def batch_of(
    data: ClipSet,
    appearance: AppearanceExtractor,
    clips: torch.Tensor,
    own: torch.Tensor,
    frames: torch.Tensor,
    t: torch.Tensor,
    conditional: torch.Tensor,
    unmoved: torch.Tensor,
    pictures: bool,
) -> Batch:
    """clips, own (R,) and frames (R, N, L) are indices into the data; t (B,), conditional (B, L) and unmoved (B,) of all noises.

    The motion is relative, with the portrait's own frame as the neutral one, so that the map of a frame shows that frame exactly.
    """
    portraits, _, length = frames.shape
    flat = frames.flatten(1)  # (R, N L)
    crops = data.portrait_crops[clips, own]  # (R, 3, 3)
    x_s, x_d, face = driven_by_clip(data, clips, own, flat, crops)
    z = data.latents[clips[:, None], flat].float().unflatten(1, frames.shape[1:]).flatten(0, 1)  # (R N, L, 4, h, w)
    with torch.no_grad():
        f_r = appearance(crop_batch(images(data, clips, own), crops, appearance.cfg.crop_size))
    return Batch(
        z_r=data.latents[clips, own].float(),
        z=z,
        noise=torch.randn(len(t), *z.shape[1:], device=data.device),
        t=t[:, None].expand(-1, length),
        conditional=conditional,
        f_r=f_r,
        x_s=x_s,
        x_d=x_d,
        frame_to_crop=crops.float(),
        face=face,
        own_face=data.faces[clips, own].float(),
        size=data.size,
        unmoved=unmoved,
        pictures=data.frames[clips[:, None], flat].unflatten(1, frames.shape[1:]).flatten(0, 1) if pictures else None,
    )


def driven_by_clip(
    data: ClipSet, clips: torch.Tensor, own: torch.Tensor, frames: torch.Tensor, crops: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x_s (R, K, 3), x_d (R, F, K, 3) and the facial masks (R, F, 2, 3) on the portrait's frame, of frames (R, F) of clips (R,)."""
    count = frames.shape[1]
    number = clips * data.length
    portrait, still = data.portrait_poses[number + own], data.driver_poses[number + own]
    driver = data.driver_poses[(number[:, None] + frames).flatten()]  # R F
    x_s = transform(portrait)

    # The driving poses in the portrait's crop, which is rotated upright with the face.
    roll = crop_roll(crops[:, :2, :2]).float().repeat_interleave(count, 0)
    heads = (portrait.scale / still.scale).repeat_interleave(count, 0)

    def every(pose: Pose) -> Pose:
        return pose._map(lambda value: value.repeat_interleave(count, 0))

    def seen(pose: Pose) -> MotionParameters:
        shifted = heads * (pose.translation[:, None] @ roll)[:, 0]
        return MotionParameters(pose.rotation @ roll, pose.expression @ roll, pose.scale, shifted)

    motion = relative(every(portrait), seen(driver), seen(every(still)))
    canonical = portrait.canonical.repeat_interleave(count, 0)
    x_d = transform_keypoints(canonical, motion.rotation, motion.expression, motion.scale, motion.translation)  # (R F, K, 3)

    # The driving mask is shifted by the offset of x_d from the driving frame's own keypoints.
    shift = PUBLIC_KEYPOINT_PX * (x_d - transform(driver))[..., :2].mean(1).double()  # (R F, 2) crop px
    to_driver = inverted(data.clip_crops[clips][:, :2]).repeat_interleave(count, 0)  # crop px -> frame px
    moved = crops.repeat_interleave(count, 0)[:, :2].clone()  # frame px -> crop px, before the shift
    moved[..., 2] -= shift
    face = compose(data.faces[clips[:, None], frames].flatten(0, 1), compose(to_driver, moved))
    return x_s, x_d.unflatten(0, (-1, count)), face.float().unflatten(0, (-1, count))


def compose(last: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """The affine matrices (B, 2, 3) of `first` followed by `last`."""
    turned = last[..., :2] @ first
    turned[..., 2] += last[..., 2]
    return turned
