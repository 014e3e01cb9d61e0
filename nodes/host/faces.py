"""Faces found by other nodes: what the host's sockets BOUNDING_BOX and FACE_LANDMARKS carry, as faces of the core.

BOUNDING_BOX is one box {"x", "y", "width", "height"} in px, a list of them, or a list with one list a frame. FACE_LANDMARKS is
{"frames": a list of faces a frame, each with "landmarks_xy" (478, 2) px, "image_size": (height, width)}.
"""

from collections.abc import Mapping, Sequence
from numbers import Real

import torch
from comfy_api.latest import io

from ...realportrait_core.errors import InputError
from ...realportrait_core.face.detect import Face
from ...realportrait_core.face.given import check_inside, face_of_box, face_of_landmarks

# By name: ComfyUI 0.3.75 does not know the types. Beside another type no host draws a widget for a box.
SOCKETS = [io.Custom("BOUNDING_BOX"), io.Custom("FACE_LANDMARKS")]
BOX = ("x", "y", "width", "height")


def portrait_faces(value, height: int, width: int, what: str) -> list[Face] | None:
    """The faces of the portrait from left to right; None where nothing is connected. A batch's first picture is the portrait.

    `what` names the input in errors. Raises InputError on anything that is no box and no landmarks, or not of this picture.
    """
    if value is None:
        return None
    return frames_of(value, 1, height, width, what)[0]


def driving_faces(value, length: int, height: int, width: int, what: str) -> list[list[Face]] | None:
    """The faces of each of `length` driving frames, from left to right; None where nothing is connected. One is for all frames.

    InputError as `portrait_faces`, and where the number of frames is another.
    """
    if value is None:
        return None
    frames = frames_of(value, length, height, width, what)
    if len(frames) not in (1, length):
        raise InputError(
            f"{what} has the faces of {len(frames)} frames, and the driving video has {length}. Give one box for all, or those "
            "of each frame: connect the same frames to the node that finds the faces."
        )
    return frames * length if len(frames) == 1 else frames


def frames_of(value, length: int, height: int, width: int, what: str) -> list[list[Face]]:
    if isinstance(value, Mapping) and "frames" in value:
        size = value.get("image_size") or (height, width)
        if not is_list(size) or len(size) != 2 or not all(isinstance(side, Real) for side in size):
            raise InputError(f"{what} has the image_size {size!r:.80}; it must be the pictures' height and width in pixels.")
        size = tuple(size)
        if size != (height, width):
            raise InputError(
                f"{what} was found on pictures of {size[1]}x{size[0]} px, and these are {width}x{height} px. Connect the same "
                "pictures to both nodes."
            )
        entries, read = value["frames"], landmark_face
    else:
        entries, read = box_frames(value, length, what), box_face
    if not is_list(entries) or not entries or not all(is_list(entry) for entry in entries):
        raise InputError(f"{what} has no frames. It must come from a node that finds faces.")
    return [faces_of(entry, read, height, width, f"{what}, frame {i}") for i, entry in enumerate(entries)]


def is_list(value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def box_frames(value, length: int, what: str) -> list:
    """One list of boxes a frame."""
    if isinstance(value, Mapping):
        return [[value]]
    if not is_list(value):
        raise InputError(f"{what} must be boxes or face landmarks of another node; this is a {type(value).__name__}.")
    if all(is_list(entry) and not any(isinstance(part, Real) for part in entry) for entry in value):
        return list(value)
    if length > 1 and len(value) > 1:  # one box a frame, or nothing
        return [[box] if box else [] for box in value]
    return [value]  # all of one picture


def faces_of(entries: Sequence, read, height: int, width: int, where: str) -> list[Face]:
    try:
        faces = [face for face in map(read, entries) if face is not None]
        for face in faces:
            check_inside(face, height, width)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return sorted(faces, key=lambda face: float(face.box[0] + face.box[2] / 2))


def box_face(box) -> Face | None:
    # Four bare numbers are two corners in one pack, a corner and a size in another.
    if not isinstance(box, Mapping) or not all(isinstance(box.get(name), Real) for name in BOX):
        raise InputError(f"a box must have the numbers x, y, width and height, in pixels; this one is {box!r:.80}.")
    try:
        return face_of_box([float(box[name]) for name in BOX])
    except OverflowError as error:
        raise InputError(f"a box must have numbers of pixels; this one is {box!r:.80}.") from error


def landmark_face(face) -> Face | None:
    if not isinstance(face, Mapping) or "landmarks_xy" not in face:
        raise InputError(f"a face must have landmarks_xy, its landmarks in pixels; this one is {face!r:.80}.")
    try:
        points = torch.as_tensor(face["landmarks_xy"])
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"landmarks_xy must be numbers, x and y of each landmark ({error!s:.200}).") from error
    return face_of_landmarks(points)
