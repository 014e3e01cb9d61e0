"""The results of each stage for each driving frame, side by side on a sheet. Colours are RGB, 0..255."""

import colorsys
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from ..animation import clips
from ..animation.keypoints import PUBLIC_KEYPOINT_PX, Keypoints, keypoints_to_crop
from ..animation.mapping import PortraitMotion, frame_portrait
from ..errors import InputError
from ..face.crop import CROP, sample_crop
from ..motion_map import MotionMaps, dense
from ..vid2vid.keypoints import Pose, transform
from .components import components
from .drawing import RIM, Drawing

TILE, BAR = 320, 24  # px, side of a tile, height of the title above it
TITLE, NAME = 13, 12  # px, size of the letters of a title, of an axis's name
AXIS = 0.42  # length of a pose axis, in units of the keypoints' grid times the pose's scale
VEIL = 0.65  # opacity of the map over the picture
BORDER = 4  # px, border of a frame that two clips share

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


def fitted(picture: np.ndarray) -> tuple[np.ndarray, float, torch.Tensor]:
    """A picture resized to fit a tile, with its scale and its offset (2,) in the tile."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (TILE - size[0]) // 2, (TILE - size[1]) // 2
    tile = np.full((TILE, TILE, 3), PAPER, np.uint8)
    resized = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    tile[top : top + size[1], left : left + size[0]] = np.asarray(resized)
    return tile, scale, torch.tensor([left, top])


def titled(tile: np.ndarray, text: str) -> np.ndarray:
    """The tile under its title: (TILE + BAR, TILE, 3)."""
    bar = Drawing(np.full((BAR, TILE, 3), PAPER, np.uint8))
    bar.text((6, BAR / 2), text, INK, TITLE, "lm")
    whole = np.concatenate([bar.tile(), tile])
    whole[:, -1] = 0  # a line between tiles
    return whole


def angles(pose: Pose, i: int) -> str:
    return f"yaw {float(pose.yaw[i]):+.0f}  pitch {float(pose.pitch[i]):+.0f}  roll {float(pose.roll[i]):+.0f}"


def driving_tile(picture: torch.Tensor, crop: torch.Tensor, points: torch.Tensor, present: bool) -> np.ndarray:
    """The whole driving frame with its crop (3, 3: px -> crop px) and the five points; red where the face is missing."""
    tile, scale, offset = fitted(pixels(picture))
    drawing = Drawing(tile)
    corners = torch.tensor([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1], [0, 0, 1]], dtype=torch.float64)
    corners[:, :2] = corners[:, :2] * CROP - 0.5
    corners = (corners @ torch.linalg.inv(crop.cpu().double()).mT)[:, :2]

    def in_tile(xy: torch.Tensor) -> torch.Tensor:
        return (xy.cpu().double() + 0.5) * scale + offset - 0.5

    drawing.line(in_tile(corners), BOX if present else MISSING, 3)
    for at in in_tile(points):
        drawing.dot(at, 2.5, POINT if present else MISSING)
    return drawing.tile()


def crop_tile(picture: torch.Tensor, crop: torch.Tensor, x: torch.Tensor, pose: Pose, i: int, points: torch.Tensor) -> np.ndarray:
    """M's crop of a picture (1, H, W, 3), with the keypoints x (K, 3), the five points and the axes of pose i."""
    zoom = TILE / CROP
    tile = pixels(sample_crop(picture.float().movedim(-1, 1), crop, TILE)[0].movedim(0, -1))
    drawing = Drawing(tile // 4 * 3)  # darker, for what is drawn on it

    def in_tile(crop_px: torch.Tensor) -> torch.Tensor:
        return (crop_px + 0.5) * zoom - 0.5

    face = points.cpu().double() @ crop[:2, :2].mT.double() + crop[:2, 2].double()  # (5, 2) crop px
    for at in in_tile(face):
        drawing.dot(at, 2, POINT)
    for k, at in enumerate(in_tile(keypoints_to_crop(x[:, :2].double()))):
        hue = colorsys.hsv_to_rgb(k / len(x), 0.55, 1.0)
        drawing.dot(at, 3.5, tuple(round(255 * value) for value in hue))
    nose = face[2]
    rotation, reach = pose.rotation[i].cpu().double(), AXIS * float(pose.scale[i]) * PUBLIC_KEYPOINT_PX
    tips = nose + reach * torch.stack([rotation[0], rotation[1], -rotation[2]])[:, :2]  # z points into the picture
    depth = rotation[:, 2] * torch.tensor([1.0, 1.0, -1.0])  # of the tips; far ones are drawn first
    for n in depth.argsort(descending=True).tolist():
        color, name = AXES[n]
        axis = in_tile(torch.stack([nose, tips[n]]))
        drawing.line(axis, RIM, 5)
        drawing.line(axis, color, 3)
        drawing.dot(axis[1], 3, color)
        side, anchor = (7, "lm") if axis[1, 0] >= axis[0, 0] else (-7, "rm")  # outwards
        drawing.text((float(axis[1, 0]) + side, float(axis[1, 1])), name, color, NAME, anchor, rim=1)
    return drawing.tile()


def feature_tile(color: torch.Tensor) -> np.ndarray:
    """f in false colours (1, 3, h, w), its cells as squares."""
    return pixels(F.interpolate(color.float(), (TILE, TILE), mode="nearest")[0].movedim(0, -1))


def map_tile(framed: np.ndarray, maps: MotionMaps, color: torch.Tensor) -> np.ndarray:
    """The map of one frame in false colours over the portrait's square (S, S, 3), its mask outlined."""
    placed = pixels(dense(replace(maps, f=color))[0].movedim(0, -1)).astype(np.float32)
    veil = VEIL * maps.mask()[0].cpu().numpy()[..., None]
    tile, scale, offset = fitted((framed * (1 - veil) + placed * veil + 0.5).astype(np.uint8))
    face = maps.face[0].cpu().double()
    if float(torch.linalg.det(face[:, :2])) == 0:  # no face: the mask is empty
        return tile
    drawing = Drawing(tile)
    turn = torch.linspace(0, 2 * math.pi, 73, dtype=torch.float64)
    rim = torch.linalg.solve(face[:, :2], torch.stack([turn.cos(), turn.sin()]) - face[:, 2:]).mT  # (73, 2) frame px
    drawing.line((rim + 0.5) * scale + offset - 0.5, OUTLINE, 1)
    return drawing.tile()


def result_tile(framed: np.ndarray, frames: torch.Tensor | None, n: int, known: bool) -> np.ndarray:
    """Animated frame n and its title, with a border where the next clip starts from it; without frames, the portrait's square."""
    if frames is None:
        return titled(fitted(framed)[0], "the portrait's square")
    if n >= len(frames):
        return titled(fitted(framed * 0)[0], "no frame")
    tile = fitted(pixels(frames[n]))[0]
    if known:
        for side in (tile[:BORDER], tile[-BORDER:], tile[:, :BORDER], tile[:, -BORDER:]):
            side[:] = BOX
    return titled(tile, f"animated frame {n}" + (": conditional in the next clip" if known else ""))
