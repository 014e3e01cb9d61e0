"""Motion position maps of training clips, made once by the same code that makes them for a user."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..face.track import FaceTrack
from ..generate import extract_keypoints, motion_maps
from ..motion_map import MotionMaps
from ..vid2vid import FaceVid2Vid
from .store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapSet:
    """For M pairs of a clip and a portrait frame in it: the maps of T driving frames, and the portrait's own."""

    clips: torch.Tensor         # (M,) of the store
    portrait: torch.Tensor      # (M,) frame
    driving: torch.Tensor       # (M, T) frames
    f: torch.Tensor             # (M, T + 1, C, h, w) float16, the last one the portrait's own
    frame_to_crop: torch.Tensor     # (M, 3, 3) float32
    face: torch.Tensor          # (M, T + 1, 2, 3) float32

    def maps(self, rows: torch.Tensor, columns: torch.Tensor, size: int) -> MotionMaps:
        """The maps of B pairs' driving frames (B, N), flattened to B N frames."""
        f = self.f[rows[:, None], columns].flatten(0, 1).float()
        face = self.face[rows[:, None], columns].flatten(0, 1)
        return MotionMaps(f, self.frame_to_crop[rows].repeat_interleave(columns.shape[1], 0), face, size, size)


@torch.inference_mode()
def make_maps(store: Store, vid2vid: FaceVid2Vid, clips: list[int], portraits: list[int], driving: list[int]) -> MapSet:
    """Maps of the frames `driving` of each clip, for each frame of `portraits` as the portrait.

    The neutral frame is the portrait itself, so `relative` says exactly what the driver does.
    """
    size = store.frames.shape[2]
    rows = []
    for done, clip in enumerate(clips):
        for portrait in portraits:
            frames = driving if portrait in driving else [portrait, *driving]
            pictures = torch.from_numpy(store.frames[clip, frames]).float() / 255
            points = store.points[clip, frames]
            track = FaceTrack(points, torch.ones(len(frames), dtype=torch.bool), "")
            own = frames.index(portrait)
            keypoints = extract_keypoints(vid2vid, pictures[own:own + 1], pictures, points[own], track)
            motion = motion_maps(vid2vid, keypoints, "relative", size=size, framing="whole", neutral=own)
            wanted = [frames.index(frame) for frame in driving]
            rows.append((
                torch.cat([motion.maps.f[wanted], motion.portrait_maps.f]),
                motion.portrait_maps.frame_to_crop[0].float(),
                torch.cat([motion.maps.face[wanted], motion.portrait_maps.face]).float(),
            ))
        if done % 50 == 0:
            log.info("maps: %d of %d clips", done, len(clips))
    f, frame_to_crop, face = (torch.stack(column) for column in zip(*rows))
    return MapSet(
        torch.tensor(clips).repeat_interleave(len(portraits)), torch.tensor(portraits).repeat(len(clips)),
        torch.tensor(driving).expand(len(rows), -1), f, frame_to_crop, face,
    )


def save_maps(maps: MapSet, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: value.numpy() for name, value in vars(maps).items()})


def load_maps(paths: list[Path]) -> MapSet:
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            parts.append({name: torch.from_numpy(file[name]) for name in MapSet.__annotations__})
    return MapSet(*(torch.cat([part[name] for part in parts]) for name in MapSet.__annotations__))
