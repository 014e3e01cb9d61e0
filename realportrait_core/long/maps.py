"""The motion position maps of one clip at a time, bit for bit those of the whole video."""

from dataclasses import replace

import torch
from torch import Tensor

from ..animation.extraction import CHUNK
from ..animation.mapping import PortraitMotion, map_geometry, maps_ladder, motion_maps
from ..animation.retargeting import DrivenKeypoints
from ..errors import InputError
from ..memory import piece_end
from ..motion_map import MotionMaps
from ..vid2vid import FaceVid2Vid


class ClipMotion:
    """Gives the motion of any frames, and keeps the f_{r->d} of the last ones: the next clip begins with some of them.

    W runs on the same chunks of frames as in `motion_maps` of the whole video, and the geometry, 200 bytes a frame, is made at
    once. before: the maps of the frames -n .. -1, which another driving video showed.
    """

    def __init__(
        self, vid2vid: FaceVid2Vid, driven: DrivenKeypoints, size: int, framing: str = "auto", before: MotionMaps | None = None
    ):
        self.vid2vid, self.driven, self.size, self.framing, self.before = vid2vid, driven, size, framing, before
        self._geometry = map_geometry(driven.keypoints, driven.x_d, size, framing)
        self._ladder = maps_ladder()
        self._ends = [0]  # of the chunks
        while self._ends[-1] < len(driven):
            self._ends.append(piece_end(self._ends[-1], CHUNK, len(driven)))
        self._f: dict[tuple[int, int], Tensor] = {}  # of chunks by their first frame and the one after their last: (n, C, h, w)
        self._portrait_maps: MotionMaps | None = None

    def __call__(self, start: int, stop: int) -> PortraitMotion:
        """The motion of the frames start .. stop - 1. Raises InputError where `before` lacks those below 0, or differs in size."""
        first = max(start, 0)
        f = self._features(first, stop)
        frames, geometry, whole = slice(first, stop), self._geometry, self.driven
        to_crop = geometry.frame_to_crop.expand(len(whole), 3, 3)[frames]
        maps = MotionMaps(f, to_crop, geometry.face[frames], self.size, self.size)
        x_d = whole.x_d[frames]
        if start < 0:
            maps, x_d = self._after(-start, maps), torch.cat([x_d[:1].expand(-start, -1, -1), x_d])
        return PortraitMotion(
            maps,
            self._portrait_maps,
            geometry.portrait_to_frame,
            whole.keypoints.portrait_size,
            x_d,
            whole.first + start,
            whole.keypoints[frames],
        )

    def _features(self, first: int, stop: int) -> Tensor:
        """f_{r->d} (stop - first, C, h, w), the chunks that are not known made in one call; earlier ones are forgotten."""
        needed = [(start, end) for start, end in zip(self._ends, self._ends[1:]) if start < stop and end > first]
        self._f = {chunk: self._f[chunk] for chunk in needed if chunk in self._f}
        missing = [chunk for chunk in needed if chunk not in self._f]
        if missing:
            part = self.driven[missing[0][0] : missing[-1][1]]
            made = motion_maps(self.vid2vid, part, self.size, self.framing, ladder=self._ladder)
            self._portrait_maps = made.portrait_maps if self._portrait_maps is None else self._portrait_maps
            for start, end in missing:
                self._f[start, end] = made.maps.f[start - missing[0][0] : end - missing[0][0]].clone()
        f = torch.cat([self._f[chunk] for chunk in needed])
        return f[first - needed[0][0] : stop - needed[0][0]]

    def _after(self, count: int, maps: MotionMaps) -> MotionMaps:
        """The maps with those of the last `count` frames of `before` in front."""
        before = self.before
        given = None if before is None else (*before.f.shape[1:], before.height, before.width, before.crop)
        if before is None or len(before) < count or given != (*maps.f.shape[1:], maps.height, maps.width, maps.crop):
            raise InputError(
                f"The continuation state holds no motion maps of {count} frames of {self.size} px, so another driving video cannot "
                "go on from it. Start the animation without the state."
            )
        known = before[len(before) - count :]
        return replace(
            maps,
            f=torch.cat([known.f, maps.f]),
            frame_to_crop=torch.cat([known.frame_to_crop, maps.frame_to_crop]),
            face=torch.cat([known.face, maps.face]),
        )
