"""What a step takes from a bank, drawn on its device: crops for the decoder, faces for M, pairs for F, W and G, clips for the
DiT, and of turned photographs the same.

Random numbers are those of the device's own generator, and nothing here makes the host wait for it.
"""

import torch
import torch.nn.functional as F

from ...animation.keypoints import KEYPOINT_PX
from ...diffusion.conditional import training_mask
from ...vid2vid.appearance import AppearanceExtractor
from ...vid2vid.keypoints import Pose, transform, transform_keypoints
from ...vid2vid.retarget import MotionParameters, relative
from ..batch import Batch, stratified_times
from ..stages import Shape
from .bank import Bank, Clips
from .motion import recolour
from .photo_faces import seen_in
from .store import crop_batch, inverted, jitter, to_unit
from .truth import pick
from .turned import TurnedPhotos
from .warp import Faces, weight_of

UNMOVED = 0.12  # of the draws leave the motion out, so that guidance by its absence is learned
PHOTOS = 0.3  # of the decoder's pictures, where there are any


def some(most: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Whole numbers 0 .. most - 1."""
    return torch.randint(most, shape, device=device)


def images(bank: Clips, clips: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) in [0, 1]."""
    return bank.frames[clips, frames].float() / 255


def decoder_pictures(bank: Bank, count: int, side: int, top: int, left: int) -> torch.Tensor:
    """(count, 3, side, side) in [0, 1], at one place of all of them: frames, and photographs where there are any."""
    photos = round(PHOTOS * count) if len(bank.photos) else 0
    clips, frames = some(len(bank), (count - photos,), bank.device), some(bank.length, (count - photos,), bank.device)
    pictures = bank.frames[clips, frames]
    if photos:
        pictures = torch.cat([pictures, bank.photos[some(len(bank.photos), (photos,), bank.device)]])
    return pictures[..., top : top + side, left : left + side].float() / 255


def motion_faces(bank: Bank, count: int, size: int) -> tuple[torch.Tensor, Pose]:
    """Pairs of frames of one clip, one after the other, in jittered portrait or clip crops and other colours: pictures
    (count, 3, size, size) and their truth."""
    clips = some(len(bank), (count // 2,), bank.device).repeat_interleave(2)
    frames = some(bank.length, (count,), bank.device)
    of_clip = (torch.rand(count // 2, device=bank.device) < 0.5).repeat_interleave(2)[:, None, None]
    crops = torch.where(of_clip, bank.clip_crops[clips], bank.portrait_crops[clips, frames])
    crops = jitter(crops, scale=0.1, shift=0.04, degrees=6.0)
    pictures = crop_batch(images(bank, clips, frames), crops, size)
    return recolour(pictures, bank.device), pick(bank.heads, clips, frames, to_unit(crops))[0]


def turned_faces(photos: TurnedPhotos, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs of a photo and itself turned, one after the other, in crops and colours as those of motion_faces: pictures
    (count, 3, size, size) and what photo_faces.turned_terms takes, places (count, 26, 2) and turns (count / 2, 3, 3)."""
    device, pairs = photos.device, count // 2
    (number, other), of_clip = turned_pairs(photos, pairs), torch.rand(pairs, 1, 1, 1, device=device) < 0.5
    clips, frames = number.repeat_interleave(2), torch.stack([torch.zeros_like(other), other], 1).flatten()
    own = photos.portrait_crops[clips, frames].unflatten(0, (pairs, 2))
    crops = torch.where(of_clip, photos.clip_crops[number][:, None], own).flatten(0, 1)
    crops = jitter(crops, scale=0.1, shift=0.04, degrees=6.0)
    pictures = recolour(crop_batch(images(photos, clips, frames), crops, size), device)
    return pictures, *seen_in(crops, photos.keypoints[clips, frames], photos.rotation[number, other])


def renderer_faces(bank: Bank, portraits: int, drivers: int, crop: int, size: int) -> Faces:
    """`portraits` frames and for each `drivers` others of its clip; faces of crop px, targets of size px."""
    clips = some(len(bank), (portraits,), bank.device)
    order = torch.rand(portraits, bank.length, device=bank.device).argsort(1)
    own, driving = order[:, 0], order[:, 1 : 1 + drivers].flatten()
    crops_r = jitter(bank.portrait_crops[clips, own], 0.05, 0.02, 3.0)
    pose_r, surface_r = pick(bank.heads, clips, own, to_unit(crops_r))
    face_r = crop_batch(images(bank, clips, own), crops_r, crop)
    portrait = torch.arange(portraits, device=bank.device).repeat_interleave(order[:, 1 : 1 + drivers].shape[1])
    clips = clips[portrait]
    crops_d = jitter(bank.clip_crops[clips], 0.05, 0.02, 0.0)
    pose_d, surface_d = pick(bank.heads, clips, driving, to_unit(crops_d))
    pictures, x_d = images(bank, clips, driving), transform(pose_d)
    alpha = F.interpolate(bank.alpha[clips, driving][:, None].float() / 255, size=bank.size, mode="bilinear")
    target, weight = crop_batch(pictures, crops_d, size), weight_of(pictures, alpha, crops_d, x_d, size)
    return Faces(face_r, transform(pose_r), x_d, surface_r, surface_d, target, weight, portrait)


def photo_faces(photos: TurnedPhotos, pairs: int, crop: int, size: int) -> Faces:
    """Portraits that are photos turned, each with the photo itself as its driving face; what the portrait does not show has no
    weight. Faces of crop px, targets of size px."""
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
    """Clips, and of each a frame in which the head is turned: (pairs,) both."""
    return some(len(photos), (pairs,), photos.device), 1 + some(photos.length - 1, (pairs,), photos.device)


def surface_in(crops: torch.Tensor, surface: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Points (B, P, 3) px of a mesh in the units of crops (B, 3, 3), their depth where that of the keypoints x (B, K, 3) is."""
    unit = to_unit(crops)
    zoom = torch.linalg.vector_norm(unit[:, 0, :2], dim=-1)[:, None, None]  # crop units a px
    flat = surface[..., :2] @ unit[..., :2].mT + unit[:, None, :, 2]
    return torch.cat([flat, zoom * surface[..., 2:] + x[..., 2:].mean(1, keepdim=True)], -1)


# Clips


def dit_batch(
    bank: Bank, appearance: AppearanceExtractor, shape: Shape, timesteps: int, unmoved: float = UNMOVED, pictures: bool = False
) -> Batch:
    """A step's portraits and clips: any frame of a clip is its portrait."""
    device = bank.device
    clips = some(len(bank), (shape.portraits,), device)  # (R,)
    own = some(bank.length, (shape.portraits,), device)
    starts = some(bank.length - shape.reach + 1, (shape.portraits, shape.clips, 1), device)
    frames = starts + shape.stride * torch.arange(shape.frames, device=device)  # (R, N, L)
    return batch_of(bank, appearance, clips, own, frames, *chances(frames, shape.draws, timesteps, unmoved), pictures)


def photo_batch(
    photos: TurnedPhotos,
    appearance: AppearanceExtractor,
    pairs: int,
    draws: int,
    timesteps: int,
    unmoved: float = UNMOVED,
    pictures: bool = False,
) -> Batch:
    """Single frames: the portrait is a photo turned, and its driving frame the photo itself."""
    clips, own = turned_pairs(photos, pairs)
    frames = torch.zeros_like(clips)[:, None, None]  # (R, 1, 1)
    return batch_of(photos, appearance, clips, own, frames, *chances(frames, draws, timesteps, unmoved), pictures)


def chances(frames: torch.Tensor, draws: int, timesteps: int, unmoved: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """t (B,), conditional (B, L) and unmoved (B,) of `draws` draws of every clip of frames (R, N, L)."""
    portraits, clips, length = frames.shape
    count, device = portraits * clips * draws, frames.device
    t, conditional = stratified_times(count, timesteps, device=device), training_mask(count, length, device=device)
    return t, conditional, torch.rand(count, device=device) < unmoved


def batch_of(
    bank: Clips,
    appearance: AppearanceExtractor,
    clips: torch.Tensor,
    own: torch.Tensor,
    frames: torch.Tensor,
    t: torch.Tensor,
    conditional: torch.Tensor,
    unmoved: torch.Tensor,
    pictures: bool,
) -> Batch:
    """clips, own (R,) and frames (R, N, L) of the bank; t (B,), conditional (B, L) and unmoved (B,) of all draws.

    The motion is relative, with the portrait's own frame as the neutral one: its map says exactly what the driver does.
    """
    portraits, _, length = frames.shape
    flat = frames.flatten(1)  # (R, N L)
    crops = bank.portrait_crops[clips, own]  # (R, 3, 3)
    x_s, x_d, face = driven(bank, clips, own, flat, crops)
    z = bank.latents[clips[:, None], flat].float().unflatten(1, frames.shape[1:]).flatten(0, 1)  # (R N, L, 4, h, w)
    with torch.no_grad():
        f_r = appearance(crop_batch(images(bank, clips, own), crops, appearance.cfg.crop_size))
    return Batch(
        z_r=bank.latents[clips, own].float(),
        z=z,
        noise=torch.randn(len(t), *z.shape[1:], device=bank.device),
        t=t[:, None].expand(-1, length),
        conditional=conditional,
        f_r=f_r,
        x_s=x_s,
        x_d=x_d,
        frame_to_crop=crops.float(),
        face=face,
        own_face=bank.faces[clips, own].float(),
        size=bank.size,
        unmoved=unmoved,
        pictures=bank.frames[clips[:, None], flat].unflatten(1, frames.shape[1:]).flatten(0, 1) if pictures else None,
    )


def driven(
    bank: Clips, clips: torch.Tensor, own: torch.Tensor, frames: torch.Tensor, crops: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x_s (R, K, 3), x_d (R, F, K, 3) and the facial masks (R, F, 2, 3) on the portrait's frame, of frames (R, F) of clips (R,)."""
    count = frames.shape[1]
    number = clips * bank.length
    portrait, still = bank.portrait_poses[number + own], bank.driver_poses[number + own]
    driver = bank.driver_poses[(number[:, None] + frames).flatten()]  # R F
    x_s = transform(portrait)

    # As the portrait's crop, which is turned upright with the face, would show the driver.
    linear = crops[:, :2, :2]
    zoom = (linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]).sqrt()
    roll = torch.zeros(len(clips), 3, 3, device=bank.device)
    roll[:, :2, :2] = (linear / zoom[:, None, None]).mT.float()
    roll[:, 2, 2].fill_(1)
    heads, roll = (portrait.scale / still.scale).repeat_interleave(count, 0), roll.repeat_interleave(count, 0)

    def every(pose: Pose) -> Pose:
        return pose._map(lambda value: value.repeat_interleave(count, 0))

    def seen(pose: Pose) -> MotionParameters:
        shifted = heads * (pose.translation[:, None] @ roll)[:, 0]
        return MotionParameters(pose.rotation @ roll, pose.expression @ roll, pose.scale, shifted)

    motion = relative(every(portrait), seen(driver), seen(every(still)))
    canonical = portrait.canonical.repeat_interleave(count, 0)
    x_d = transform_keypoints(canonical, motion.rotation, motion.expression, motion.scale, motion.translation)  # (R F, K, 3)

    # The driver's mask moves by as much as x_d lies beside its own keypoints.
    shift = KEYPOINT_PX * (x_d - transform(driver))[..., :2].mean(1).double()  # (R F, 2) crop px
    to_driver = inverted(bank.clip_crops[clips][:, :2]).repeat_interleave(count, 0)  # crop px -> frame px
    moved = crops.repeat_interleave(count, 0)[:, :2].clone()  # frame px -> crop px, before the shift
    moved[..., 2] -= shift
    face = along(bank.faces[clips[:, None], frames].flatten(0, 1), along(to_driver, moved))
    return x_s, x_d.unflatten(0, (-1, count)), face.float().unflatten(0, (-1, count))


def along(last: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """The affine (B, 2, 3) that is `first` and then `last`."""
    turned = last[..., :2] @ first
    turned[..., 2] += last[..., 2]
    return turned
