"""What each stage made of each driver frame, drawn side by side; and how far the result drifts from clip to clip.

cv2 draws; colours are RGB, 0..255. Sizes are in px.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from .animation import clips
from .animation.extraction import crop_faces
from .animation.keypoints import KEYPOINT_PX, Keypoints
from .animation.mapping import PortraitMotion, frame_portrait
from .errors import InputError
from .face.crop import CROP, rescale, sample_crop
from .motion_map import MotionMaps, dense
from .vid2vid import FaceVid2Vid
from .vid2vid.keypoints import Pose, transform

TILE, BAR = 320, 24  # side of a tile, height of the title above it
LEARNT = 64  # frames, evenly spaced, that the principal components are taken from
AXIS = 0.42  # length of a pose axis, in units of the keypoints' grid times the pose's scale
VEIL = 0.65  # of the map over the picture
RIM = 4  # px, around a frame that two clips share
CHUNK = 8  # frames that are measured at once

INK, PAPER = (235, 235, 235), (24, 24, 28)
BOX, MISSING, POINT, OUTLINE = (90, 200, 255), (255, 80, 80), (255, 220, 60), (255, 255, 255)
AXES = (((235, 70, 70), "right"), ((80, 210, 90), "down"), ((90, 140, 255), "front"))

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Components:
    """The three main directions of f over a clip, as red, green and blue."""

    mean: torch.Tensor  # (C,)
    axes: torch.Tensor  # (C, 3)
    spread: torch.Tensor  # (3,) standard deviation along each
    share: float  # of f's variance that they hold

    def colors(self, f: torch.Tensor) -> torch.Tensor:
        """(L, C, h, w) -> (L, 3, h, w) in [0, 1]: the mean is grey, two deviations are full."""
        along = torch.einsum("lchw,cn->lnhw", f.float() - self.mean[:, None, None], self.axes)
        return (0.5 + along / (4 * self.spread[:, None, None])).clamp(0, 1)


def components(f: torch.Tensor) -> Components:
    """The main components of f (L, C, h, w), from at most LEARNT of its frames; f of fewer than 3 channels is padded."""
    count = min(len(f), LEARNT)
    picked = torch.linspace(0, len(f) - 1, count).round().long()
    channels = f.shape[1]
    mean = torch.stack([f[i].double().mean((1, 2)) for i in picked]).mean(0)  # (C,)
    spread = torch.zeros(channels, channels, dtype=torch.float64)
    for i in picked:
        values = f[i].double().flatten(1) - mean[:, None]
        spread += values @ values.mT / (values.shape[1] * count)
    variance, axes = torch.linalg.eigh(spread)  # ascending
    if channels < 3:
        axes, variance = F.pad(axes, (3 - channels, 0)), F.pad(variance, (3 - channels, 0))
    axes, along = axes[:, -3:].flip(1), variance[-3:].flip(0).clamp(min=0)
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # eigh leaves the signs open
    share = float(along.sum() / variance.clamp(min=0).sum().clamp(min=1e-12))
    return Components(mean.float(), (axes * signs).float(), along.sqrt().clamp(min=1e-6).float(), share)


# Pictures


def inspect(
    keypoints: Keypoints,
    motion: PortraitMotion,
    driver: torch.Tensor,
    portrait: torch.Tensor,
    frames: torch.Tensor | None = None,
    chosen: list[int] | None = None,
    clip_frames: int = 16,
    callback: Progress | None = None,
) -> torch.Tensor:
    """A sheet of six tiles for each chosen frame of the motion (n, 2 (TILE + BAR), 3 TILE, 3), in [0, 1].

    driver (L, H, W, 3) and portrait (1, H', W', 3) are what keypoints and motion were made from; frames (at most as many as
    the motion has, ..., 3) what came of it in clips of clip_frames: those that the next clip starts with are framed. Raises
    InputError where they do not belong together. callback(done, total) after each sheet.
    """
    length, count = len(keypoints.driver), len(motion.maps)
    if len(driver) != length or motion.first + count > length:
        raise InputError(
            f"The keypoints are of {length} driver frames, the driver has {len(driver)} and the motion {count}, from frame "
            f"{motion.first} on. Connect those that were made from one another."
        )
    if frames is not None and len(frames) > count:
        raise InputError(f"There are {len(frames)} animated frames for a motion of {count}: they belong to another one.")
    chosen = list(range(count)) if chosen is None else chosen
    known = {clip.start for clip in clips.plan(count, clip_frames) if clip.conditional}
    basis, framed = components(motion.maps.f), pixels(frame_portrait(portrait, motion)[0])
    theirs, own = transform(keypoints.driver), transform(keypoints.portrait)
    still = crop_tile(portrait, keypoints.portrait_crop, own[0], keypoints.portrait, 0, keypoints.portrait_points)
    out = torch.empty(len(chosen), 2 * (TILE + BAR), 3 * TILE, 3)
    for done, n in enumerate(chosen, 1):
        i = motion.first + n  # of the driver's frames
        present, points = bool(keypoints.present[i]), keypoints.driver_points[i]
        found = "face found" if present else "FACE MISSING"
        color = basis.colors(motion.maps.f[n : n + 1])  # (1, 3, h, w)
        tiles = [
            titled(driver_tile(driver[i], keypoints.driver_crop, points, present), f"driver, frame {i} of {length}: {found}"),
            titled(
                crop_tile(driver[i : i + 1], keypoints.driver_crop, theirs[i], keypoints.driver, i, points),
                f"its crop: {angles(keypoints.driver, i)}",
            ),
            titled(still, f"portrait: {angles(keypoints.portrait, 0)}"),
            titled(feature_tile(color), f"warped feature f: 3 components, {100 * basis.share:.0f} %"),
            titled(map_tile(framed, motion.maps[n], color), "motion position map on the portrait"),
            result_tile(framed, frames, n, n in known),
        ]
        sheet = np.concatenate([np.concatenate(tiles[:3], 1), np.concatenate(tiles[3:], 1)], 0)
        torch.div(torch.from_numpy(sheet), 255, out=out[done - 1])
        if callback is not None:
            callback(done, len(chosen))
    return out


def pixels(picture: torch.Tensor) -> np.ndarray:
    """(H, W, 3) in [0, 1] -> uint8."""
    return np.ascontiguousarray((picture.float().clamp(0, 1) * 255).round().byte().cpu().numpy())


def fitted(picture: np.ndarray) -> tuple[np.ndarray, float, tuple[int, int]]:
    """A picture made to fit a tile, with the scale and the offset (x, y) at which it lies there."""
    import cv2

    height, width = picture.shape[:2]
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (TILE - size[0]) // 2, (TILE - size[1]) // 2
    tile = np.full((TILE, TILE, 3), PAPER, np.uint8)
    filtering = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    tile[top : top + size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=filtering)
    return tile, scale, (left, top)


def titled(tile: np.ndarray, text: str) -> np.ndarray:
    """The tile under its title: (TILE + BAR, TILE, 3)."""
    import cv2

    bar = np.full((BAR, TILE, 3), PAPER, np.uint8)
    cv2.putText(bar, text, (6, BAR - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    bar[:, -1], tile[:, -1] = 0, 0  # a line between tiles
    return np.concatenate([bar, tile])


def angles(pose: Pose, i: int) -> str:
    return f"yaw {float(pose.yaw[i]):+.0f}  pitch {float(pose.pitch[i]):+.0f}  roll {float(pose.roll[i]):+.0f}"


def spots(xy: torch.Tensor) -> list[tuple[int, int]]:
    """(n, 2) px -> what cv2 takes with shift=4, sixteenths of a pixel."""
    return [(round(16 * x), round(16 * y)) for x, y in xy.double().tolist()]


def dot(tile: np.ndarray, at: tuple[int, int], radius: float, color: tuple[int, ...]) -> None:
    """A filled disc with a dark rim, so that it is seen on any skin."""
    import cv2

    cv2.circle(tile, at, round(16 * (radius + 1)), (0, 0, 0), -1, cv2.LINE_AA, 4)
    cv2.circle(tile, at, round(16 * radius), color, -1, cv2.LINE_AA, 4)


def driver_tile(picture: torch.Tensor, crop: torch.Tensor, points: torch.Tensor, present: bool) -> np.ndarray:
    """The whole driver frame with its crop (3, 3: px -> crop px) and the five points; red where the face is missing."""
    import cv2

    tile, scale, offset = fitted(pixels(picture))
    corners = torch.tensor([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.float64)
    corners[:, :2] = corners[:, :2] * CROP - 0.5
    corners = (corners @ torch.linalg.inv(crop.cpu().double()).mT)[:, :2]

    def place(xy: torch.Tensor) -> list[tuple[int, int]]:
        return spots((xy.cpu().double() + 0.5) * scale + torch.tensor(offset, dtype=torch.float64) - 0.5)

    cv2.polylines(tile, [np.array(place(corners), np.int32)], True, BOX if present else MISSING, 2, cv2.LINE_AA, 4)
    for at in place(points):
        dot(tile, at, 2.5, POINT if present else MISSING)
    return tile


def crop_tile(picture: torch.Tensor, crop: torch.Tensor, x: torch.Tensor, pose: Pose, i: int, points: torch.Tensor) -> np.ndarray:
    """The crop that M reads, of picture (1, H, W, 3), with the keypoints x (K, 3), the five points and the axes of pose i."""
    import cv2

    zoom = TILE / CROP
    tile = pixels(sample_crop(picture.float().movedim(-1, 1), crop, TILE)[0].movedim(0, -1))
    tile = np.ascontiguousarray(tile // 4 * 3)  # darker, for what is drawn on it

    def place(crop_px: torch.Tensor) -> list[tuple[int, int]]:
        return spots((crop_px + 0.5) * zoom - 0.5)

    face = points.cpu().double() @ crop[:2, :2].mT.double() + crop[:2, 2].double()  # (5, 2) crop px
    for at in place(face):
        dot(tile, at, 2, POINT)
    for k, at in enumerate(place(KEYPOINT_PX * x[:, :2].double() + (CROP - 1) / 2)):
        hue = colorsys.hsv_to_rgb(k / len(x), 0.55, 1.0)
        dot(tile, at, 3.5, tuple(round(255 * value) for value in hue))
    nose = face[2]
    rotation, reach = pose.rotation[i].cpu().double(), AXIS * float(pose.scale[i]) * KEYPOINT_PX
    tips = nose + reach * torch.stack([rotation[0], rotation[1], -rotation[2]])[:, :2]  # z points into the picture
    (start,) = place(nose[None])
    depth = rotation[:, 2] * torch.tensor([1.0, 1.0, -1.0])  # of the tips, into the picture
    for n in depth.argsort(descending=True).tolist():
        color, name = AXES[n]
        (tip,) = place(tips[n : n + 1])
        cv2.line(tile, start, tip, (0, 0, 0), 4, cv2.LINE_AA, 4)
        cv2.line(tile, start, tip, color, 2, cv2.LINE_AA, 4)
        dot(tile, tip, 3, color)
        wide = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.38, 1)[0][0]
        at = tip[0] // 16 + (7 if tip[0] >= start[0] else -wide - 7), tip[1] // 16 + 4  # outwards
        for ink, thickness in (((0, 0, 0), 3), (color, 1)):  # a dark rim
            cv2.putText(tile, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, ink, thickness, cv2.LINE_AA)
    return tile


def feature_tile(color: torch.Tensor) -> np.ndarray:
    """f in false colours (1, 3, h, w), its cells as squares."""
    import cv2

    return cv2.resize(pixels(color[0].movedim(0, -1)), (TILE, TILE), interpolation=cv2.INTER_NEAREST)


def map_tile(framed: np.ndarray, maps: MotionMaps, color: torch.Tensor) -> np.ndarray:
    """The map of one frame in false colours over the portrait's square (S, S, 3), its mask outlined."""
    import cv2

    placed = pixels(dense(replace(maps, f=color))[0].movedim(0, -1)).astype(np.float32)
    mask = maps.mask()[0].cpu().numpy()
    veil = VEIL * mask[..., None]
    tile, scale, (left, top) = fitted((framed * (1 - veil) + placed * veil + 0.5).astype(np.uint8))
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = [(((line + 0.5) * scale + (left - 0.5, top - 0.5)) * 16).astype(np.int32) for line in outline]
    cv2.polylines(tile, outline, True, OUTLINE, 1, cv2.LINE_AA, 4)
    return tile


def result_tile(framed: np.ndarray, frames: torch.Tensor | None, n: int, known: bool) -> np.ndarray:
    """Animated frame n under its title, framed where the next clip knows it; the portrait's square where none was made."""
    if frames is None:
        return titled(fitted(framed)[0], "the portrait's square")
    if n >= len(frames):
        return titled(fitted(framed * 0)[0], "no frame")
    tile = fitted(pixels(frames[n]))[0]
    if known:
        for side in (tile[:RIM], tile[-RIM:], tile[:, :RIM], tile[:, -RIM:]):
            side[:] = BOX
    return titled(tile, f"animated frame {n}" + (": conditional in the next clip" if known else ""))


# Drift


@dataclass(frozen=True)
class Look:
    """What frames look like on the whole; colours 0..255."""

    first: int
    last: int  # frame numbers
    mean: torch.Tensor  # (3,) R, G, B
    deviation: torch.Tensor  # (3,) over the pixels of a frame, mean over the frames
    sharpness: float  # variance of the brightness's Laplacian, mean over the frames
    keypoints: float | None = None  # px, mean distance from where the motion wants them; None: not measured


def keypoint_errors(vid2vid: FaceVid2Vid, frames: torch.Tensor, motion: PortraitMotion) -> torch.Tensor:
    """How far the keypoints that M reads off the animated frames (n, H, W, 3) lie from the wanted ones: (n,), mean over them.

    In px of the square that was animated, whatever the size that the frames were brought to since.
    """
    size, errors = motion.maps.height, []
    to_square = rescale(size / frames.shape[1])
    for start in range(0, len(frames), CHUNK):
        part = frames[start : start + CHUNK]
        forward = motion.maps.frame_to_crop[start : start + len(part)].double() @ to_square
        seen = transform(vid2vid.motion(crop_faces(vid2vid, part, forward))).cpu()
        errors.append((seen - motion.wanted[start : start + len(part)])[..., :2].norm(dim=-1).mean(1))
    crop_px = torch.linalg.det(motion.maps.frame_to_crop[: len(frames), :2, :2].double()).abs().sqrt()
    return torch.cat(errors) * KEYPOINT_PX / crop_px.to(errors[0])


def look(frames: torch.Tensor, first: int = 0, errors: torch.Tensor | None = None) -> Look:
    """Of frames (n, H, W, 3) in [0, 1], the first of which has the number `first`, and of their keypoint errors (n,) px."""
    from kornia.color import rgb_to_grayscale

    # The Laplacian of the four neighbours, as cv2's of size 1; kornia's has eight and another scale.
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    means, deviations, edges = [], [], []
    for start in range(0, len(frames), CHUNK):
        part = 255 * frames[start : start + CHUNK].float()
        means.append(part.mean((1, 2)))
        deviations.append(part.flatten(1, 2).std(1, correction=0))
        luma = rgb_to_grayscale(part.movedim(-1, 1))  # (chunk, 1, H, W)
        edges.append(F.conv2d(luma, kernel.to(luma)).flatten(1).var(1, correction=0))
    mean, deviation, sharpness = (torch.cat(parts).mean(0) for parts in (means, deviations, edges))
    keypoints = None if errors is None else float(errors.mean())
    return Look(first, first + len(frames) - 1, mean, deviation, float(sharpness), keypoints)


def drift(frames: torch.Tensor, clip_frames: int, errors: torch.Tensor | None = None) -> list[Look]:
    """Clip by clip, of frames (n, H, W, 3) that were made in clips of clip_frames, and of their keypoint_errors (n,).

    Frames that two clips share count with the earlier.
    """
    own = [clip.new_frames for clip in clips.plan(len(frames), clip_frames)]
    return [look(frames[part], part.start, None if errors is None else errors[part]) for part in own]


def drift_table(found: list[Look], reference: Look | None = None) -> str:
    """One line a clip, and the change from the first to the last; reference: the portrait's own square, on a line of its own."""

    def line(name: str, place: str, one: Look) -> str:
        numbers = [f"{value:6.1f}" for value in (*one.mean.tolist(), *one.deviation.tolist())]
        error = "" if one.keypoints is None else f"   {one.keypoints:12.2f}"
        return f"{name:<9}{place:<11}{' '.join(numbers[:3])}   {' '.join(numbers[3:])}   {one.sharpness:9.1f}{error}"

    measured = found[0].keypoints is not None
    lines = [
        f"{'clip':<9}{'frames':<11}{'mean R':>6} {'G':>6} {'B':>6}   {'dev. R':>6} {'G':>6} {'B':>6}   {'sharpness':>9}"
        + "   keypoints px" * measured
    ]
    if reference is not None:
        lines.append(line("portrait", "", reference))
    lines += [line(str(n), f"{one.first}-{one.last}", one) for n, one in enumerate(found)]
    a, b = found[0], found[-1]
    if len(found) > 1:
        shift = ", ".join(f"{value:+.1f}" for value in (b.mean - a.mean).tolist())
        spread = float((b.deviation / a.deviation.clamp(min=1e-6)).mean())
        further = f"; keypoints {b.keypoints - a.keypoints:+.2f} px off" if measured else ""
        lines.append(
            f"Clip {len(found) - 1} against clip 0: mean {shift} of 255; deviation x {spread:.2f}; sharpness x "
            f"{b.sharpness / max(a.sharpness, 1e-6):.2f}{further}."
        )
    else:
        lines.append("One clip: nothing to drift from.")
    return "\n".join(lines)
