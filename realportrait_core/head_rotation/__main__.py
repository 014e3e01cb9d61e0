"""python -m realportrait_core.head_rotation FOLDER OUT.png --face OBJ: a sheet of photos turned in 3-D. FOLDER: see dataset.py."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, RealPortraitError
from .change import Change, joined, pose_change
from .dataset import read_photos
from .topology import read_topology
from .turning import Turned, turn

POSES = (
    pose_change(yaw=-12),
    pose_change(yaw=12),
    pose_change(pitch=-10),
    pose_change(pitch=10),
    pose_change(yaw=8, pitch=5, roll=8),
    pose_change(expression={"jaw": 1, "lips": 0.5}),
    pose_change(expression={"smile": 1, "brows": 1}),
    pose_change(expression={"lids": 1, "smile": -0.5}),
    pose_change(shift=(8, 4), scale=1.05),
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m realportrait_core.head_rotation", description=__doc__)
    parser.add_argument("folder", type=Path, help="photos with their points.npz")
    parser.add_argument("out", type=Path, help="the sheet, a PNG: per photo a row of pictures and a row of their unknown pixels")
    parser.add_argument("--count", type=int, default=4, help="photos, from the first on (%(default)s)")
    parser.add_argument("--face", type=Path, required=True, help="MediaPipe's canonical_face_model.obj")
    parser.add_argument("--marks", action="store_true", help="draw the moved mesh's points")
    parser.add_argument("--no-masks", action="store_true", help="pictures only")
    return parser.parse_args(argv)


def sheet(photos: Tensor, turned: Turned, mesh: Tensor, masks: bool, marks: bool) -> np.ndarray:
    """(H, W, 3) uint8: for every photo (B, 3, S, S) a row that begins with the photo, and below it the unknown pixels in white."""
    pictures = torch.cat([photos[:, None], turned.pictures], 1)
    points = torch.cat([mesh[:, None], turned.mesh], 1)
    if marks:
        place = points[..., :2].round().long().clamp(0, photos.shape[-1] - 1)  # (B, N, P, 2)
        flat = (place[..., 1] * photos.shape[-1] + place[..., 0])[:, :, None].expand(-1, -1, 3, -1)
        green = pictures.new_tensor([0.2, 1.0, 0.2])[:, None].expand(flat.shape)
        pictures = pictures.flatten(3).scatter(3, flat, green).unflatten(3, photos.shape[2:])
    rows = [pictures]
    if masks:
        unknown = torch.cat([turned.share[:, None] / 2, turned.unknown], 1)
        rows.append(unknown[:, :, None].expand_as(pictures))
    stack = torch.stack(rows, 1)  # (B, 1 or 2, N, 3, S, S)
    image = stack.permute(0, 1, 4, 2, 5, 3)
    image = image.reshape(image.shape[0] * image.shape[1] * image.shape[2], -1, 3)
    return (image * 255).round().byte().numpy()


def main(argv: list[str] | None = None) -> None:
    import cv2

    args = parse(argv)
    try:
        if args.count < 1:
            raise InputError(f"--count is {args.count}; it must be at least 1.")
        topology, photos = read_topology(args.face), read_photos(args.folder, args.count)
        pictures, mesh = photos.take(torch.arange(len(photos)))
        change = joined(list(POSES))
        change = Change(*(x.expand(len(photos), *x.shape[1:]) for x in vars(change).values()))
        started = time.perf_counter()
        turned = turn(pictures, mesh, topology, change)
        took = time.perf_counter() - started
        if not cv2.imwrite(str(args.out), sheet(pictures, turned, mesh, not args.no_masks, args.marks)[..., ::-1]):
            raise InputError(f"{args.out} cannot be written as a picture.")
    except (RealPortraitError, cv2.error) as error:
        sys.exit(str(error))
    print(
        f"{args.out}: {len(photos)} photos in {len(POSES)} poses, {1000 * took / len(photos) / len(POSES):.1f} ms a picture; "
        f"unknown by pose, %: {' '.join(f'{100 * x:.1f}' for x in turned.unknown.mean((0, 2, 3)).tolist())}"
    )


if __name__ == "__main__":
    main()
