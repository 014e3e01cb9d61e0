"""From a portrait and a driver to an animation: the whole flow, without ComfyUI.

face points -> crops -> keypoints (M) -> driven keypoints -> f_{r->d} (W) -> motion position maps -> denoising -> frames.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from . import clips
from .diffusion.guidance import guided
from .diffusion.sampling import Denoise, Solver, cpu_noise, sample_clip
from .diffusion.schedule import Schedule
from .dit.cache import Caching, with_cache
from .dit.embed import ClipShape
from .dit.model import RealPortraitDiT
from .errors import InputError
from .face.crop import (
    CROP,
    carry_ellipse,
    clip_crop,
    face_ellipse,
    face_square,
    points_to_crop,
    sample_crop,
    upright_square,
    warp_averaged,
)
from .face.track import FaceTrack, Gaps
from .motion_map import MotionMaps
from .speed import default_sampling
from .vid2vid import FaceVid2Vid
from .vid2vid.between import between
from .vid2vid.checkpoint import motion_fingerprint
from .vid2vid.keypoints import Pose, cat, rotation_angles, transform
from .vid2vid.neutral import neutral_frame
from .vid2vid.retarget import FULL, Gains, Mode, drive
from .vid2vid.retarget import Motion as PoseMotion
from .vid2vid.shots import as_one_shot
from .vid2vid.stitching import Finish, finish

CHUNK = 8  # frames that go through M or W at once: memory stays the same for any driver
# The square that MINI's training pictures are: its side in extents of the face, and where it lies.
FACE_SHARE = 2.44  # side of the frame / extent of the face
FACE_DROP = 0.02  # the frame's centre lies so much of its side below the face's
# Head to waist, wider than anything that MINI was trained on.
HALF_BODY_SHARE, HALF_BODY_DROP = 4.6, 0.2
CLOSE_ENOUGH = 0.76  # a picture at most 1 / 0.76 times too wide for its face is taken whole, as one in twenty of those
FRAMINGS = ("auto", "half-body", "whole")
KEYPOINT_PX = (CROP - CROP // 64) / 2  # crop px a unit of the keypoints' grid, whose ends are cell centres of 64
KEYPOINT_MIDDLE = (CROP - 1) / 2  # crop px of the keypoints' 0

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Keypoints:
    """What the driver does and where the portrait's face is."""

    portrait: Pose  # 1 pose
    driver: Pose  # L poses, in the driver's one crop
    feature: torch.Tensor  # (1, C, D, h, w) f_r
    portrait_crop: torch.Tensor  # (3, 3) float64, portrait px -> crop px
    driver_crop: torch.Tensor  # (3, 3) float64, driver px -> crop px
    portrait_points: torch.Tensor  # (5, 2) px
    driver_points: torch.Tensor  # (L, 5, 2) px
    present: torch.Tensor  # (L,) bool, whether the driver's face was found
    portrait_size: tuple[int, int]  # height, width in px
    driver_size: tuple[int, int]  # height, width in px
    encoder: str = ""  # motion_fingerprint of the M that read the poses; empty where it is not known
    cuts: tuple[int, ...] = ()  # frames before which the driver is cut to another shot of the face
    shown: torch.Tensor | None = None  # (L,) how much of the motion is shown, 0 .. 1; None: all of it
    finish: Finish | None = None  # what is done to the driven keypoints in the end; None: nothing


@dataclass(frozen=True)
class Driver:
    """What a driver does in L frames, without a portrait: what a motion file keeps."""

    motion: PoseMotion  # L frames, in the driver's one crop
    canonical: torch.Tensor | None  # (L, K, 3); None where only the motion is known, as in LivePortrait's templates
    points: torch.Tensor | None  # (L, 5, 2) px, or None
    crop: torch.Tensor  # (3, 3) float64, driver px -> crop px
    present: torch.Tensor  # (L,) bool, whether the driver's face was found
    size: tuple[int, int]  # height, width in px
    fps: float  # frames a second
    encoder: str  # motion_fingerprint of the M that read it; empty where it is not known

    def __len__(self) -> int:
        return len(self.motion.rotation)


@dataclass(frozen=True)
class Motion:
    """The motion position maps of L frames, on a square frame that shows the portrait's face."""

    maps: MotionMaps  # L frames
    portrait_maps: MotionMaps  # 1 frame: the portrait's own, f_{r->r}
    portrait_to_frame: torch.Tensor  # (3, 3) float64, portrait px -> frame px
    portrait_size: tuple[int, int]
    wanted: torch.Tensor | None = None  # (L, K, 3) x_d in the portrait's crop: where the animation's keypoints shall lie
    first: int = 0  # the driver's frame that the first of the L is of


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def crop_faces(vid2vid: FaceVid2Vid, pictures: torch.Tensor, forward: torch.Tensor) -> torch.Tensor:
    """The faces of pictures (L, H, W, 3), as F and M read them: (L, 3, size, size) on the networks' device."""
    return sample_crop(pictures.movedim(-1, 1).to(device_of(vid2vid), torch.float32), forward, vid2vid.cfg.crop_size)


def extract_keypoints(
    vid2vid: FaceVid2Vid,
    portrait: torch.Tensor,
    driver: torch.Tensor,
    portrait_points: torch.Tensor,
    track: FaceTrack,
    callback: Progress | None = None,
) -> Keypoints:
    """portrait (1, H, W, 3) and driver (L, H', W', 3) in [0, 1], their face points (5, 2) and track -> Keypoints.

    callback(done, total) after each chunk of frames. Raises InputError where driver and track differ in length.
    """
    if len(driver) != len(track.points):
        raise InputError(f"The driver has {len(driver)} frames, its face track {len(track.points)}.")
    portrait_crop, driver_crop = points_to_crop(portrait_points), clip_crop(track.points)
    face = crop_faces(vid2vid, portrait, portrait_crop)
    faces = torch.arange(len(driver)) if track.gaps is None else track.present.nonzero()[:, 0]
    poses = []
    for start in range(0, len(faces), CHUNK):
        poses.append(vid2vid.motion(crop_faces(vid2vid, driver[faces[start : start + CHUNK]], driver_crop)).to("cpu"))
        if callback is not None:
            callback(min(start + CHUNK, len(faces)) * len(driver) // len(faces), len(driver))
    return Keypoints(
        portrait=vid2vid.motion(face).to("cpu"),
        driver=cat(poses) if track.gaps is None else without_gaps(cat(poses), track.present, track.gaps),
        feature=vid2vid.appearance(face).cpu(),
        portrait_crop=portrait_crop,
        driver_crop=driver_crop,
        portrait_points=portrait_points,
        driver_points=track.points,
        present=track.present,
        portrait_size=tuple(portrait.shape[1:3]),
        driver_size=tuple(driver.shape[1:3]),
        encoder=motion_fingerprint(vid2vid),
        cuts=track.cuts,
        shown=track.shown,
    )


def without_gaps(poses: Pose, present: torch.Tensor, gaps: Gaps) -> Pose:
    """The poses of the frames with the face, of which there are present.sum() -> those of all frames (L)."""
    number = present.cumsum(0) - 1  # of a frame with the face among those
    held = poses[number[gaps.before]]
    return between(held, poses[number[gaps.after]], gaps.share) if gaps.share.any() else held


def one_shot(keypoints: Keypoints) -> Keypoints:
    """The keypoints as if the driver had not been cut: its poses go on across each cut, its face points with them."""
    if not keypoints.cuts:
        return keypoints
    before, after = keypoints.driver, as_one_shot(keypoints.driver, keypoints.cuts)
    crop, back = keypoints.driver_crop, torch.linalg.inv(keypoints.driver_crop)
    x = (keypoints.driver_points.double() @ crop[:2, :2].T + crop[:2, 2] - KEYPOINT_MIDDLE) / KEYPOINT_PX  # (L, 5, 2)
    x = (after.scale / before.scale)[:, None] * (x - before.translation[:, None, :2]) + after.translation[:, None, :2]
    points = (x * KEYPOINT_PX + KEYPOINT_MIDDLE) @ back[:2, :2].T + back[:2, 2]
    return replace(keypoints, driver=after, driver_points=points.float(), cuts=())


def driver_of(keypoints: Keypoints, fps: float) -> Driver:
    """The driver's side of the keypoints, as one shot."""
    keypoints = one_shot(keypoints)
    pose = keypoints.driver
    return Driver(
        motion=PoseMotion(pose.rotation, pose.expression, pose.scale, pose.translation),
        canonical=pose.canonical,
        points=keypoints.driver_points,
        crop=keypoints.driver_crop,
        present=keypoints.present,
        size=keypoints.driver_size,
        fps=fps,
        encoder=keypoints.encoder,
    )


def join_driver(vid2vid: FaceVid2Vid, portrait: torch.Tensor, portrait_points: torch.Tensor, driver: Driver) -> Keypoints:
    """portrait (1, H, W, 3) in [0, 1], its face points (5, 2), and a driver that was read before -> Keypoints.

    Where the driver's canonical keypoints or face points are not known, the portrait's stand for them. Raises InputError
    for a driver of another number of keypoints, or one that another M has read: its expressions mean something else.
    """
    own, k = motion_fingerprint(vid2vid), driver.motion.expression.shape[1]
    if k != vid2vid.cfg.num_kp:
        raise InputError(
            f"The motion has {k} keypoints and this Face Vid2vid {vid2vid.cfg.num_kp}: the motion was read by other weights. "
            "Load those, or extract the keypoints again from the driver's frames."
        )
    if driver.encoder and driver.encoder != own:
        raise InputError(
            f"The motion was read by other Face Vid2vid weights (fingerprint {driver.encoder}, these are {own}): its expressions "
            "would mean something else here. Load those weights, or extract the keypoints again from the driver's frames."
        )
    portrait_crop = points_to_crop(portrait_points)
    face = crop_faces(vid2vid, portrait, portrait_crop)
    pose, motion = vid2vid.motion(face).to("cpu"), driver.motion
    canonical = pose.canonical.expand(len(driver), k, 3) if driver.canonical is None else driver.canonical
    poses = Pose(canonical, motion.rotation, *rotation_angles(motion.rotation), motion.expression, motion.scale, motion.translation)
    points = driver.points
    if points is None:
        points = points_by_poses(pose, poses, portrait_points, portrait_crop, driver.crop)
    return Keypoints(
        portrait=pose,
        driver=poses,
        feature=vid2vid.appearance(face).cpu(),
        portrait_crop=portrait_crop,
        driver_crop=driver.crop,
        portrait_points=portrait_points,
        driver_points=points,
        present=driver.present,
        portrait_size=tuple(portrait.shape[1:3]),
        driver_size=driver.size,
        encoder=own,
    )


def points_by_poses(
    portrait: Pose, driver: Pose, portrait_points: torch.Tensor, portrait_crop: torch.Tensor, driver_crop: torch.Tensor
) -> torch.Tensor:
    """Where the driver's five points would be (L, 5, 2) px, if its head were the portrait's.

    The portrait's points go along by the turn in the plane, the size and the shift that take its keypoints nearest to
    the driver's.
    """

    def plane(x: torch.Tensor) -> torch.Tensor:  # (..., 2) as complex numbers
        return torch.view_as_complex(x[..., :2].double().contiguous())

    still, moved = plane(transform(portrait)), plane(transform(driver))  # (1, K), (L, K)
    middle, shifted = still.mean(1, keepdim=True), moved.mean(1, keepdim=True)
    turn = ((still - middle).conj() * (moved - shifted)).sum(1, keepdim=True) / (still - middle).abs().square().sum()
    points = torch.cat([portrait_points.double(), portrait_points.new_ones(5, 1).double()], 1) @ portrait_crop[:2].T
    points = plane((points - KEYPOINT_MIDDLE) / KEYPOINT_PX)  # (5,)
    points = torch.view_as_real(shifted + turn * (points - middle)) * KEYPOINT_PX + KEYPOINT_MIDDLE  # (L, 5, 2)
    back = torch.linalg.inv(driver_crop)
    return (points @ back[:2, :2].T + back[:2, 2]).float()


def frame_square(points: torch.Tensor, height: int, width: int, size: int, framing: str) -> torch.Tensor:
    """(3, 3) float64: picture px -> px of a size x size frame, a square of the picture that holds the face.

    "whole" takes the picture's shorter side; "auto" comes closer to the face where it is smaller than in training; "half-body"
    shows head to waist, where the picture does.
    """
    if framing not in FRAMINGS:
        raise InputError(f"The framing is {framing!r}; it must be one of: {', '.join(FRAMINGS)}.")
    square = face_square(points, scale=1.0, vy=0.0)
    side, drop = float(min(height, width)), FACE_DROP
    wanted = FACE_SHARE * float(square.size)
    if framing == "auto" and wanted < CLOSE_ENOUGH * side:
        side = wanted
    if framing == "half-body":
        side, drop = min(side, HALF_BODY_SHARE * float(square.size)), HALF_BODY_DROP
    centre = square.center + torch.tensor([0.0, drop * side], dtype=torch.float64)
    return upright_square(centre, side, height, width, size)


def turned_upright(pose: Pose, portrait_crop: torch.Tensor) -> Pose:
    """A driver's poses as the portrait's crop would show them, which is turned upright with the face where the driver's is not.

    x Q = s (x_c R Q + delta Q) + t Q.
    """
    linear = portrait_crop[:2, :2]
    roll = torch.eye(3, dtype=torch.float64)
    roll[:2, :2] = (linear / torch.linalg.det(linear).sqrt()).T
    roll = roll.to(pose.rotation)
    return replace(pose, rotation=pose.rotation @ roll, expression=pose.expression @ roll, translation=pose.translation @ roll)


def seen_by_portrait(driver: Pose, neutral: Pose, portrait: Pose, portrait_crop: torch.Tensor) -> tuple[Pose, Pose]:
    """The driver's poses and its neutral one as the portrait's crop would show them.

    They are turned upright with it, and a step to the side is measured in heads: t times the ratio of the two scales.
    """
    heads = portrait.scale / neutral.scale  # (1, 1)

    def seen(pose: Pose) -> Pose:
        pose = turned_upright(pose, portrait_crop)
        return replace(pose, translation=heads * pose.translation)

    return seen(driver), seen(neutral)


def find_neutral(keypoints: Keypoints) -> int:
    """The driver's frame, from 0, that is calm and nearest to the portrait in pose and expression."""
    driver = one_shot(keypoints).driver
    return neutral_frame(keypoints.portrait, turned_upright(driver, keypoints.portrait_crop), keypoints.present)


def driven_keypoints(
    keypoints: Keypoints,
    mode: Mode,
    pose_gain: float,
    expression_gain: float,
    neutral: int,
    gains: Gains = FULL,
    frames: slice = slice(None),
) -> torch.Tensor:
    """x_d (L, K, 3) in the portrait's crop, of the chosen frames; the neutral one is counted among all of the driver's."""
    if not 0 <= neutral < len(keypoints.driver):
        raise InputError(f"The neutral frame {neutral} is not among the driver's {len(keypoints.driver)} frames.")
    driver, still = keypoints.driver[frames], keypoints.driver[neutral : neutral + 1]
    if mode == "relative":
        driver, still = seen_by_portrait(driver, still, keypoints.portrait, keypoints.portrait_crop)
    x_d = drive(keypoints.portrait, driver, still, mode, pose_gain, expression_gain, gains)
    return x_d if keypoints.finish is None else finish(transform(keypoints.portrait), x_d, keypoints.finish)


def frame_range(keypoints: Keypoints, first: int, count: int) -> slice:
    """The driver's frames from `first` on, at most `count` of them, 0 for all. InputError where none is left."""
    total = len(keypoints.driver)
    if not 0 <= first < total or count < 0:
        raise InputError(
            f"The range of {count} frames from frame {first} is not within the driver's {total} frames (0 to {total - 1}). "
            "Choose an earlier first frame; a count of 0 takes all that follow."
        )
    return slice(first, min(first + count, total) if count else total)


def cut(keypoints: Keypoints, frames: slice) -> Keypoints:
    """The keypoints of some of the driver's frames, a slice without gaps."""
    start, stop, _ = frames.indices(len(keypoints.driver))
    return replace(
        keypoints,
        driver=keypoints.driver[frames],
        driver_points=keypoints.driver_points[frames],
        present=keypoints.present[frames],
        shown=None if keypoints.shown is None else keypoints.shown[frames],
        cuts=tuple(frame - start for frame in keypoints.cuts if start < frame < stop),
    )


def motion_maps(
    vid2vid: FaceVid2Vid,
    keypoints: Keypoints,
    mode: Mode = "relative",
    pose_gain: float = 1.0,
    expression_gain: float = 1.0,
    size: int = 256,
    framing: str = "auto",
    neutral: int = 0,
    gains: Gains = FULL,
    frames: slice = slice(None),
    callback: Progress | None = None,
) -> Motion:
    """The maps of the chosen driver frames on a size x size px frame of the portrait; f is kept in fp16 on the CPU.

    The maps lie where the portrait's crop lies: the driver's motion is in x_d. `relative` counts a driver that is cut as
    one shot. callback(done, total) after each chunk.
    """
    device, length = device_of(vid2vid), len(keypoints.driver)
    if mode == "relative":
        keypoints = one_shot(keypoints)
    x_s = transform(keypoints.portrait)
    x_d = driven_keypoints(keypoints, mode, pose_gain, expression_gain, neutral, gains, frames)
    keypoints = cut(keypoints, frames)
    shown = torch.ones(len(x_d)) if keypoints.shown is None else keypoints.shown
    feature = keypoints.feature.to(device)
    compressed = vid2vid.warping.compress(feature)
    parts = []
    for start in range(0, len(x_d), CHUNK):
        x = x_d[start : start + CHUNK].to(device)
        out = vid2vid.warping(feature, x, x_s.to(device), compressed).out
        parts.append((out * shown[start : start + CHUNK, None, None, None].to(out)).half().cpu())
        if callback is not None:
            callback(min(start + CHUNK, len(x_d)), len(x_d))
    own = vid2vid.warping(feature, x_s.to(device), x_s.to(device), compressed).out.half().cpu()

    place = place_maps(keypoints, x_d, size, framing)
    maps = MotionMaps(torch.cat(parts), place.frame_to_crop.expand(len(x_d), 3, 3), place.face, size, size)
    portrait_maps = MotionMaps(own, place.frame_to_crop[None], place.portrait_face[None], size, size)
    first, _, _ = frames.indices(length)
    return Motion(maps, portrait_maps, place.portrait_to_frame, keypoints.portrait_size, x_d, first)


@dataclass(frozen=True)
class Place:
    """Where the maps of L frames lie on the frame, apart from what is in them."""

    portrait_to_frame: torch.Tensor  # (3, 3) float64, portrait px -> frame px
    frame_to_crop: torch.Tensor  # (3, 3) float64, frame px -> crop px
    face: torch.Tensor  # (L, 2, 3) frame px -> unit disc
    portrait_face: torch.Tensor  # (2, 3)


def place_maps(keypoints: Keypoints, x_d: torch.Tensor, size: int, framing: str) -> Place:
    """x_d (L, K, 3) in the portrait's crop: the driver's facial mask moves by as much as x_d lies beside its own keypoints."""
    portrait_to_frame = frame_square(keypoints.portrait_points, *keypoints.portrait_size, size, framing)
    frame_to_crop = keypoints.portrait_crop @ torch.linalg.inv(portrait_to_frame)  # (3, 3)
    shift = KEYPOINT_PX * (x_d - transform(keypoints.driver))[..., :2].mean(1).double()  # (L, 2)
    face = carry_ellipse(face_ellipse(keypoints.driver_points), keypoints.driver_crop, frame_to_crop, shift)
    portrait_face = face_ellipse(keypoints.portrait_points) @ torch.linalg.inv(portrait_to_frame)
    return Place(portrait_to_frame, frame_to_crop, face, portrait_face)


def frame_portrait(portrait: torch.Tensor, motion: Motion) -> torch.Tensor:
    """The part of the portrait (1, H, W, 3) that the motion's frame shows: (1, size, size, 3).

    Raises InputError for a picture that is not of the size the motion was made for.
    """
    if tuple(portrait.shape[1:3]) != tuple(motion.portrait_size):
        height, width = motion.portrait_size
        raise InputError(
            f"The portrait is {portrait.shape[2]}x{portrait.shape[1]} px; the motion was made for one of {width}x{height} px. "
            "Connect the same picture to both."
        )
    size, pictures = motion.maps.height, portrait.movedim(-1, 1)
    identity = torch.eye(3, dtype=torch.float64)
    if pictures.shape[2:] == (size, size) and torch.allclose(motion.portrait_to_frame, identity):
        return portrait
    return sample_frame(pictures, motion.portrait_to_frame, size).movedim(1, -1)


def sample_frame(pictures: torch.Tensor, forward: torch.Tensor, size: int) -> torch.Tensor:
    """(B, C, H, W) -> (B, C, size, size), averaged down where the picture is larger."""
    shrink = 1 / float(torch.linalg.det(forward[:2, :2]).abs().sqrt())
    return warp_averaged(pictures, forward, size, size, max(1, round(shrink)))


def render(
    dit: RealPortraitDiT,
    schedule: Schedule,
    reference_latent: torch.Tensor,
    motion: Motion,
    steps: int | None = None,
    seed: int = 0,
    strength: float = 1.0,
    callback: Progress | None = None,
    solver: Solver | None = None,
    caching: Caching = Caching(),
    guidance: float = 1.0,
) -> torch.Tensor:
    """Latents (L, 4, h, w) of every driver frame, clip after clip; reference_latent (1, 4, h, w).

    Clip i draws its noise with seed + i. The network runs in its own dtype, the samples are float32. guidance: how far to go
    from the portrait without motion to the one with it; 1 is the latter, above it every step calls the network twice.
    callback(done, total) counts steps over all clips.
    steps and solver: by default as the weights were trained for, the paper's 50 of IDDPM for epsilon weights.
    """
    cfg, device, dtype = dit.cfg, device_of(dit), dit.x_embedder.proj.weight.dtype
    usual = default_sampling(cfg)
    steps, solver = usual.steps if steps is None else steps, solver or usual.solver
    if cfg.distilled_steps and (steps, solver) != (usual.steps, usual.solver):
        raise InputError(
            f"These weights are distilled for {usual.steps} steps of {usual.solver}; {steps} of {solver} were asked for."
        )
    shape = ClipShape(motion.maps.height, motion.maps.width, cfg.clip_frames, cfg.fps)
    own = motion.portrait_maps.to(device, dtype) if cfg.reference_motion else None
    reference = dit.encode_reference(reference_latent.to(device, dtype), shape, own)
    plan = clips.plan(len(motion.maps), cfg.clip_frames)
    latents: list[torch.Tensor] = []
    for i, clip in enumerate(plan):
        control = dit.encode_motion(motion.maps[clips.frames(clip)].to(device, dtype), reference)
        draw = cpu_noise(seed + i)
        noise = draw(torch.empty(clip.length, *reference_latent.shape[1:], device=device))
        known = torch.stack(latents[-clip.conditional :]) if clip.conditional else None

        def denoiser(control: torch.Tensor | None) -> Denoise:
            predict = with_cache(dit, caching)

            def denoise(z, t, conditional):
                return predict(z[None].to(dtype), t[None], shape, reference, control, conditional[None], strength)[0]

            return denoise

        def counted(step: int, before: int = i * steps):
            if callback is not None:
                callback(before + step + 1, len(plan) * steps)

        denoise = guided(denoiser(control), denoiser(None), guidance)
        z = sample_clip(denoise, noise, schedule, steps, cfg.prediction, known, counted, solver, draw)
        latents.extend(z[clip.conditional : clip.stop - clip.start].cpu())
    return torch.stack(latents)
