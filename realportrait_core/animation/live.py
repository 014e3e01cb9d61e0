"""A portrait that follows a camera: driving frames go in one by one, and each gives its animated frame at once.

F has seen the portrait once; for each frame M, W and G run once. The motion is `relative`: the change since the first frame, or
since a neutral one, is added to the portrait, as in a driving video.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..face.blend import crop_place, paste_face, soft_square
from ..face.crop import CROP_MIDDLE, points_to_crop
from ..face.follow import FaceFollower
from ..vid2vid import FaceVid2Vid
from ..vid2vid.keypoints import Pose, transform
from ..vid2vid.retarget import retarget
from ..vid2vid.stitching import Finish, finish
from .extraction import appearance_of, crop_faces, device_of, dtype_of
from .keypoints import PUBLIC_KEYPOINT_PX
from .retargeting import in_portrait_crop
from .vid2vid_frames import check_generator, picture_size


def in_other_crop(pose: Pose, crop: Tensor, other: Tensor) -> Pose:
    """A pose measured in one upright crop as another upright crop would show it; both (3, 3), frame px -> crop px.

    The crops differ by a zoom and a shift: s and t change with them, R and delta do not.
    """
    zoom = float(other[0, 0] / crop[0, 0])
    shift = (zoom * (CROP_MIDDLE - crop[:2, 2]) + other[:2, 2] - CROP_MIDDLE) / PUBLIC_KEYPOINT_PX  # (2,)
    translation = zoom * pose.translation + torch.nn.functional.pad(shift, (0, 1)).to(pose.translation)
    return replace(pose, scale=zoom * pose.scale, translation=translation)


class Live:
    """The animation of one portrait by one camera. Its state: the crop of the face in the camera's frames, and the neutral pose.

        live = Live(vid2vid, portrait, portrait_points(portrait[0], detector), FaceFollower(detector))
        animated = live.frame(picture)  # (H, W, 3), the portrait's size

    portrait (1, H, W, 3) in [0, 1]; portrait_points (5, 2) px; finish: stitching, as in Keypoints. Between frames the networks
    may be moved to another device. Raises WeightsError for weights without a generator.
    """

    def __init__(
        self, vid2vid: FaceVid2Vid, portrait: Tensor, portrait_points: Tensor, follower: FaceFollower, finish: Finish | None = None
    ):
        check_generator(vid2vid)
        self.vid2vid, self.follower, self.finish = vid2vid, follower, finish
        self.portrait = portrait[0].float().cpu()  # (H, W, 3)
        self.portrait_crop = points_to_crop(portrait_points)
        with torch.inference_mode():
            face = crop_faces(vid2vid, portrait, self.portrait_crop)
            self.portrait_pose = vid2vid.motion(face).to("cpu")
            self._feature = appearance_of(vid2vid, face)  # (1, C, D, h, w) f_r
        self._compressed: Tensor | None = None  # of f_r, what W makes of it once; None until the first frame
        self._x_s = transform(self.portrait_pose)  # (1, K, 3)
        self._place = crop_place(self.portrait_crop, picture_size(vid2vid), soft_square(), *self.portrait.shape[:2])
        self._neutral: Pose | None = None
        self._neutral_crop: Tensor | None = None  # (3, 3), the crop in which it is measured
        self._size: tuple[int, int] | None = None  # of the camera's frames
        self._x_d = self._x_s  # (1, K, 3) of the last frame with a face

    def reset(self, neutral: Tensor | None = None) -> None:
        """Forgets the face and the neutral pose. The next frame with a face is the neutral one, or `neutral` (H, W, 3), if it
        shows a face.
        """
        self.follower.reset()
        self._neutral, self._neutral_crop, self._x_d, self._size = None, None, self._x_s, None
        if neutral is not None:
            self._begin(neutral)
            self._drive(neutral)

    @torch.inference_mode()
    def face(self, picture: Tensor) -> Tensor:
        """The next camera frame (H', W', 3) in [0, 1] -> G's picture of the portrait's face crop (3, S, S), on G's device.

        A frame without the face repeats the last one; before the first face the portrait is at rest. Frames of another size
        than before start anew. Raises InputError for another shape.
        """
        self._begin(picture)
        self._drive(picture)
        w, g, device = self.vid2vid.warping, self.vid2vid.generator, device_of(self.vid2vid)
        if self._compressed is None or self._compressed.device != device:
            self._feature = self._feature.to(device, dtype_of(w))
            self._compressed = w.compress(self._feature)
        f = w(self._feature, self._x_d.to(device), self._x_s.to(device), self._compressed).out  # (1, Cw, h, w)
        return g(f.to(dtype_of(g)))[0].float()

    @torch.inference_mode()
    def frame(self, picture: Tensor) -> Tensor:
        """The next camera frame -> the portrait with the animated face pasted in: (H, W, 3) on the CPU, of the portrait's size."""
        face, out = self.face(picture), self.portrait.clone()
        paste_face(out, face, self._place)
        return out

    def _begin(self, picture: Tensor) -> None:
        """Starts anew where the picture's size is another one. Raises InputError for what is no picture."""
        if picture.ndim != 3 or picture.shape[-1] != 3:
            raise InputError(f"A camera frame must be (height, width, 3); this one is {tuple(picture.shape)}.")
        size = (picture.shape[0], picture.shape[1])
        if self._size not in (None, size):
            self.reset()
        self._size = size

    @torch.inference_mode()
    def _drive(self, picture: Tensor) -> None:
        """x_d of a camera frame; unchanged where it shows no face."""
        crop = self.follower.crop(picture)
        if crop is None:
            return
        pose = self.vid2vid.motion(crop_faces(self.vid2vid, picture[None], crop)).to("cpu")
        if self._neutral is None or self._neutral_crop is None:
            self._neutral, self._neutral_crop = pose, crop
        pose = in_other_crop(pose, crop, self._neutral_crop)
        driver, at_rest = in_portrait_crop(pose, self._neutral, self.portrait_pose, self.portrait_crop)
        x_d = retarget(self.portrait_pose, driver, at_rest, "relative", 1.0, 1.0)
        self._x_d = x_d if self.finish is None else finish(self._x_s, x_d, self.finish)
