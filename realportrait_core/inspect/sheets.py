"""The results of each stage for each driving frame, side by side on a sheet. Drawn with cv2; colours are RGB, 0..255."""

import colorsys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ..animation import clips
from ..animation.keypoints import PUBLIC_KEYPOINT_PX, Keypoints, keypoints_to_crop
from ..animation.mapping import PortraitMotion, frame_portrait
from ..errors import InputError
from ..face.crop import CROP, sample_crop
from ..face.opencv import import_cv2
from ..motion_map import MotionMaps, dense
from ..vid2vid.keypoints import Pose, transform
from .components import components

TILE, BAR = 320, 24  # px, side of a tile, height of the title above it
AXIS = 0.42  # length of a pose axis, in units of the keypoints' grid times the pose's scale
VEIL = 0.65  # opacity of the map over the picture
RIM = 4  # px, border of a frame that two clips share

INK, PAPER = (235, 235, 235), (24, 24, 28)
BOX, MISSING, POINT, OUTLINE = (90, 200, 255), (255, 80, 80), (255, 220, 60), (255, 255, 255)
AXES = (((235, 70, 70), "right"), ((80, 210, 90), "down"), ((90, 140, 255), "front"))

Progress = Callable[[int, int], None]


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

    Driving frames (L, H, W, 3) and portrait (1, H', W', 3) are the inputs of keypoints and motion; frames (at most as many as
    the motion has, ..., 3) the animation in clips of clip_frames. Conditional frames of the next clip get a border.
    callback(done, total) after each sheet. Raises InputError where the inputs do not belong together.
    """
    length, count = len(keypoints.driver), len(motion.maps)
    if len(driver) != length or motion.first + count > length:
        raise InputError(
            f"The keypoints are of {length} driving frames, the driving video has {len(driver)} and the motion {count}, from frame "
            f"{motion.first} on. Connect those that were made from one another."
        )
    if frames is not None and len(frames) > count:
        raise InputError(f"There are {len(frames)} animated frames for a motion of {count}: they belong to another one.")
    chosen = list(range(count)) if chosen is None else chosen
    known = {clip.start for clip in clips.plan(count, clip_frames) if clip.overlap}
    basis, framed = components(motion.maps.f), pixels(frame_portrait(portrait, motion)[0])
    driving, own = transform(keypoints.driver), transform(keypoints.portrait)
    portrait_tile = crop_tile(portrait, keypoints.portrait_crop, own[0], keypoints.portrait, 0, keypoints.portrait_points)
    out = torch.empty(len(chosen), 2 * (TILE + BAR), 3 * TILE, 3)
    for done, n in enumerate(chosen, 1):
        i = motion.first + n  # of the driving frames
        present, points = bool(keypoints.present[i]), keypoints.driver_points[i]
        found = "face found" if present else "FACE MISSING"
        color = basis.colors(motion.maps.f[n : n + 1])  # (1, 3, h, w)
        tiles = [
            titled(driving_tile(driver[i], keypoints.driver_crop, points, present), f"driving frame {i} of {length}: {found}"),
            titled(
                crop_tile(driver[i : i + 1], keypoints.driver_crop, driving[i], keypoints.driver, i, points),
                f"its crop: {angles(keypoints.driver, i)}",
            ),
            titled(portrait_tile, f"portrait: {angles(keypoints.portrait, 0)}"),
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
    """A picture resized to fit a tile, with its scale and its offset (x, y) in the tile."""
    cv2 = import_cv2()

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
    cv2 = import_cv2()

    bar = np.full((BAR, TILE, 3), PAPER, np.uint8)
    cv2.putText(bar, text, (6, BAR - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    bar[:, -1], tile[:, -1] = 0, 0  # a line between tiles
    return np.concatenate([bar, tile])


def angles(pose: Pose, i: int) -> str:
    return f"yaw {float(pose.yaw[i]):+.0f}  pitch {float(pose.pitch[i]):+.0f}  roll {float(pose.roll[i]):+.0f}"


def sixteenths(xy: torch.Tensor) -> list[tuple[int, int]]:
    """(n, 2) px -> sixteenths of a pixel, cv2's coordinates with shift=4."""
    return [(round(16 * x), round(16 * y)) for x, y in xy.double().tolist()]


def dot(tile: np.ndarray, at: tuple[int, int], radius: float, color: tuple[int, ...]) -> None:
    """A filled disc with a dark rim, visible on any skin."""
    cv2 = import_cv2()

    cv2.circle(tile, at, round(16 * (radius + 1)), (0, 0, 0), -1, cv2.LINE_AA, 4)
    cv2.circle(tile, at, round(16 * radius), color, -1, cv2.LINE_AA, 4)


def driving_tile(picture: torch.Tensor, crop: torch.Tensor, points: torch.Tensor, present: bool) -> np.ndarray:
    """The whole driving frame with its crop (3, 3: px -> crop px) and the five points; red where the face is missing."""
    cv2 = import_cv2()

    tile, scale, offset = fitted(pixels(picture))
    corners = torch.tensor([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.float64)
    corners[:, :2] = corners[:, :2] * CROP - 0.5
    corners = (corners @ torch.linalg.inv(crop.cpu().double()).mT)[:, :2]

    def in_tile(xy: torch.Tensor) -> list[tuple[int, int]]:
        return sixteenths((xy.cpu().double() + 0.5) * scale + torch.tensor(offset, dtype=torch.float64) - 0.5)

    cv2.polylines(tile, [np.array(in_tile(corners), np.int32)], True, BOX if present else MISSING, 2, cv2.LINE_AA, 4)
    for at in in_tile(points):
        dot(tile, at, 2.5, POINT if present else MISSING)
    return tile


def crop_tile(picture: torch.Tensor, crop: torch.Tensor, x: torch.Tensor, pose: Pose, i: int, points: torch.Tensor) -> np.ndarray:
    """M's crop of a picture (1, H, W, 3), with the keypoints x (K, 3), the five points and the axes of pose i."""
    cv2 = import_cv2()

    zoom = TILE / CROP
    tile = pixels(sample_crop(picture.float().movedim(-1, 1), crop, TILE)[0].movedim(0, -1))
    tile = np.ascontiguousarray(tile // 4 * 3)  # darker, for what is drawn on it

    def in_tile(crop_px: torch.Tensor) -> list[tuple[int, int]]:
        return sixteenths((crop_px + 0.5) * zoom - 0.5)

    face = points.cpu().double() @ crop[:2, :2].mT.double() + crop[:2, 2].double()  # (5, 2) crop px
    for at in in_tile(face):
        dot(tile, at, 2, POINT)
    for k, at in enumerate(in_tile(keypoints_to_crop(x[:, :2].double()))):
        hue = colorsys.hsv_to_rgb(k / len(x), 0.55, 1.0)
        dot(tile, at, 3.5, tuple(round(255 * value) for value in hue))
    nose = face[2]
    rotation, reach = pose.rotation[i].cpu().double(), AXIS * float(pose.scale[i]) * PUBLIC_KEYPOINT_PX
    tips = nose + reach * torch.stack([rotation[0], rotation[1], -rotation[2]])[:, :2]  # z points into the picture
    (start,) = in_tile(nose[None])
    depth = rotation[:, 2] * torch.tensor([1.0, 1.0, -1.0])  # of the tips; far ones are drawn first
    for n in depth.argsort(descending=True).tolist():
        color, name = AXES[n]
        (tip,) = in_tile(tips[n : n + 1])
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
    cv2 = import_cv2()

    return cv2.resize(pixels(color[0].movedim(0, -1)), (TILE, TILE), interpolation=cv2.INTER_NEAREST)


def map_tile(framed: np.ndarray, maps: MotionMaps, color: torch.Tensor) -> np.ndarray:
    """The map of one frame in false colours over the portrait's square (S, S, 3), its mask outlined."""
    cv2 = import_cv2()

    placed = pixels(dense(replace(maps, f=color))[0].movedim(0, -1)).astype(np.float32)
    mask = maps.mask()[0].cpu().numpy()
    veil = VEIL * mask[..., None]
    tile, scale, (left, top) = fitted((framed * (1 - veil) + placed * veil + 0.5).astype(np.uint8))
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = [(((line + 0.5) * scale + (left - 0.5, top - 0.5)) * 16).astype(np.int32) for line in outline]
    cv2.polylines(tile, outline, True, OUTLINE, 1, cv2.LINE_AA, 4)
    return tile


def result_tile(framed: np.ndarray, frames: torch.Tensor | None, n: int, known: bool) -> np.ndarray:
    """Animated frame n and its title, with a border where the next clip starts from it; without frames, the portrait's square."""
    if frames is None:
        return titled(fitted(framed)[0], "the portrait's square")
    if n >= len(frames):
        return titled(fitted(framed * 0)[0], "no frame")
    tile = fitted(pixels(frames[n]))[0]
    if known:
        for side in (tile[:RIM], tile[-RIM:], tile[:, :RIM], tile[:, -RIM:]):
            side[:] = BOX
    return titled(tile, f"animated frame {n}" + (": conditional in the next clip" if known else ""))
