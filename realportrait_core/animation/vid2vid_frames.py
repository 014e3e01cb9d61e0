"""Face Vid2vid's own frames: G's picture of every driven frame, in the portrait's face crop or pasted into the portrait.

Not part of RealPortrait, which gives f_{r->d} to its transformer instead: this is the animation of LivePortrait. G sees the
motion's f_{r->d}, and no square of RealPortrait's size lies between its picture and the portrait.
"""

from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor

from ..errors import InputError, WeightsError
from ..face.blend import Place, crop_place, paste_face, soft_square, whole_mask
from ..memory import Ladder, halves, pieces
from ..vid2vid import FaceVid2Vid
from ..vid2vid.checkpoint import motion_fingerprint
from ..vid2vid.keypoints import transform
from ..vid2vid.public import PUBLIC_FILES, REPOSITORY
from .extraction import device_of, dtype_of, portrait_features
from .mapping import PortraitMotion, portrait_of

CHUNK = 4  # frames in G at once on a GPU; a CPU is no faster by several, and can be cancelled after each


def check_generator(vid2vid: FaceVid2Vid) -> None:
    """Raises WeightsError without G."""
    if vid2vid.generator is None:
        raise WeightsError(
            "These Face Vid2vid weights have no generator, the network that draws the pictures. LivePortrait's is "
            f"{PUBLIC_FILES['generator']}, from {REPOSITORY} on Hugging Face: put it beside the other files, in "
            "models/liveportrait or models/realportrait, and run again."
        )


def check_rendering(vid2vid: FaceVid2Vid, motion: PortraitMotion) -> None:
    """Raises WeightsError without G, InputError for a motion of other weights."""
    check_generator(vid2vid)
    channels, wanted = motion.maps.f.shape[1], vid2vid.cfg.warped_channels
    made = "" if motion.keypoints is None else motion.keypoints.encoder
    if channels != wanted or (made and made != motion_fingerprint(vid2vid)):
        raise InputError(
            f"Other Face Vid2vid weights made this motion ({channels} channels, M {made or 'not known'}; the loaded ones have "
            f"{wanted} channels, M {motion_fingerprint(vid2vid)}). Connect the same Load Face Vid2vid to all nodes."
        )


def features_for_generator(vid2vid: FaceVid2Vid, motion: PortraitMotion, frames: slice) -> Tensor:
    """f_{r->d} (n, Cw, h, w) of some frames, on G's device in G's dtype.

    Where the face is missing and the motion fades, the maps hold w f_{r->d} with a weight w below 1: less motion for the
    transformer, but for G a feature that belongs to no face. W runs again for these frames, to keypoints that fade to the
    portrait's own: x = x_s + w (x_d - x_s).
    """
    device, dtype = device_of(vid2vid.generator), dtype_of(vid2vid.generator)
    f, keypoints = motion.maps.f[frames].to(device, dtype), motion.keypoints
    if keypoints is None or keypoints.motion_weight is None:
        return f
    weight = keypoints.motion_weight[frames]
    fading = (weight < 1).nonzero()[:, 0]
    if not len(fading):
        return f
    x_s = transform(keypoints.portrait)  # (1 or L, K, 3)
    own = x_s if len(x_s) == 1 else x_s[frames][fading]
    f_r = portrait_features(vid2vid, keypoints, frames)
    f_r = f_r[fading.to(device)] if keypoints.of_video else f_r
    x = torch.lerp(own.expand(len(fading), -1, -1), motion.x_d[frames][fading].to(own), weight[fading, None, None])
    warped = vid2vid.warping(f_r, x.to(device), own.to(device)).out
    return f.index_copy(0, fading.to(device), warped.to(f))  # f may be a view of the motion's own


def generator_ladder(vid2vid: FaceVid2Vid, chunk: int | None = None) -> Ladder:
    """chunk: frames in G at once, by default what suits the device."""
    return Ladder("Face Vid2vid's generator", halves(chunk or (1 if device_of(vid2vid.generator).type == "cpu" else CHUNK)))


def face_frames(
    vid2vid: FaceVid2Vid, motion: PortraitMotion, chunk: int | None = None, ladder: Ladder | None = None
) -> Iterator[Tensor]:
    """G's pictures of the portrait's face crop, chunk by chunk: (n, 3, S, S) float32 in [0, 1] on G's device.

    S is G's own: 512 px with the public weights. chunk: frames at once, by default what suits the device, fewer where memory runs
    out; ladder: `generator_ladder` of a run that renders clip by clip.
    Weights and motion belong together, as `check_rendering` checks; it reads all of M's weights, so it is not done here.
    Raises InsufficientMemory.
    """

    def drawn(frames: slice) -> Tensor:
        return vid2vid.generator(features_for_generator(vid2vid, motion, frames)).float()

    for faces, _ in pieces(len(motion.maps), ladder or generator_ladder(vid2vid, chunk), drawn):
        yield faces


def portrait_places(motion: PortraitMotion, size: int) -> Iterator[Place]:
    """Where G's picture of `size` px lies in the portrait, for one frame after the other: the same place for all of a still one."""
    if motion.keypoints is None:
        raise InputError("This motion does not know the portrait's crop: make it again with Apply Motion to Portrait.")
    mask, crops = soft_square(), motion.keypoints.portrait_crop
    if motion.keypoints.of_video:
        return (crop_place(crop, size, mask, *motion.portrait_size) for crop in crops)
    return repeat(crop_place(crops, size, mask, *motion.portrait_size), len(motion.maps))


def portrait_pictures(motion: PortraitMotion, pictures: Tensor | None) -> Tensor:
    """The pictures (n, H, W, 3) into which the face is pasted, by default the motion's own portrait. Raises InputError."""
    pictures = portrait_of(motion) if pictures is None else pictures
    size, wanted = tuple(pictures.shape[1:3]), tuple(motion.portrait_size)
    if size != wanted:
        raise InputError(
            f"The portrait is {size[1]}x{size[0]} px; the motion was made for one of {wanted[1]}x{wanted[0]} px. Connect the "
            "same picture to both, or frames of its size."
        )
    return pictures


def portrait_frames(
    vid2vid: FaceVid2Vid,
    motion: PortraitMotion,
    pictures: Tensor | None = None,
    chunk: int | None = None,
    ladder: Ladder | None = None,
) -> Iterator[Tensor]:
    """The portrait with G's picture of every frame pasted in, chunk by chunk: (n, H, W, 3) float32 on the CPU.

    pictures (1 or more, H, W, 3) in [0, 1]: the portrait, or frames of its size, of which the last is held; by default the
    motion's own. Outside the crop they keep their bits. Weights as in `face_frames`. Raises InputError for another size.
    """
    pictures, at = portrait_pictures(motion, pictures), 0
    places = portrait_places(motion, picture_size(vid2vid))
    for faces in face_frames(vid2vid, motion, chunk, ladder):
        numbers = range(at, at + len(faces))
        out = pictures[[min(i, len(pictures) - 1) for i in numbers]].float().cpu()  # indexing copies
        for picture, face, place in zip(out, faces, places):
            paste_face(picture, face, place)
        yield out
        at += len(faces)


def frames_mask(motion: PortraitMotion, size: int) -> Tensor:
    """Where, and how strongly, a picture of `size` px is pasted: (1 or L, H, W) on the CPU."""
    places = list(portrait_places(motion, size))
    different = places if motion.keypoints.of_video else places[:1]
    return torch.stack([whole_mask(place, *motion.portrait_size) for place in different])


def picture_size(vid2vid: FaceVid2Vid) -> int:
    """Side of G's picture in px."""
    return 4 * vid2vid.cfg.feature_size * vid2vid.cfg.upscale
