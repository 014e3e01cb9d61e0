"""What every method receives: a portrait and a driving video with their faces. Needs no truth."""

from dataclasses import dataclass

from torch import Tensor

from ..animation.extraction import extract_keypoints
from ..animation.mapping import PortraitMotion, motion_maps
from ..animation.retargeting import drive_keypoints
from ..face.detect import FaceDetector
from ..face.track import FaceTrack, portrait_points, track
from .networks import Networks


@dataclass(frozen=True)
class Source:
    """A portrait and a driving video of L frames, of any two sizes."""

    portrait: Tensor  # (1, H, W, 3) in [0, 1]
    driving: Tensor  # (L, H', W', 3) uint8
    points: Tensor  # (5, 2) px, of the portrait's face
    track: FaceTrack  # the face in the driving video


def find_faces(portrait: Tensor, driving: Tensor, detector: FaceDetector) -> Source:
    """Both with their faces; portrait (H, W, 3) and driving video (L, H', W', 3) uint8. FaceError where a face is missing."""
    picture = portrait[None].float() / 255
    return Source(picture, driving, portrait_points(picture[0], detector), track(driving, detector))


def motion_of(networks: Networks, source: Source, framing: str = "whole") -> PortraitMotion:
    """The portrait's motion on a frame of the transformer's size; framing as in `motion_maps`.

    The driving video's first frame is the neutral one: of the clip itself it is the portrait, and all published figures were
    measured so.
    """
    driving = source.driving.float() / 255
    keypoints = extract_keypoints(networks.vid2vid, source.portrait, driving, source.points, source.track)
    size = networks.dit.cfg.input_sq_size
    return motion_maps(networks.vid2vid, drive_keypoints(keypoints, neutral=0), size, framing)
