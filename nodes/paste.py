"""The result at the portrait's own size: the animated square laid over the picture it was taken from."""

import comfy.model_management
import torch
from comfy_api.latest import io

from ..realportrait_core.animation.keypoints import Keypoints as KeypointsValue
from ..realportrait_core.animation.mapping import portrait_of
from ..realportrait_core.errors import InputError
from ..realportrait_core.paste import frames_out, paste, reframe
from .host import images
from .host.newer import advanced, aliases
from .host.run import Progress, finite, one_of
from .sockets import Keypoints, Motion

LENGTHS = ["longest", "shortest"]


class PasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitPasteBack",
            display_name="Paste Animation Back",
            category="RealPortrait",
            description="Pastes the animated square into the full-size portrait with a soft edge. The result can be the "
            "picture for the next face, so that several faces of one picture move.",
            inputs=[
                io.Image.Input(
                    "picture",
                    optional=True,
                    tooltip="What the animation is pasted into. Not needed for the portrait itself, which the motion holds: "
                    "connect frames of the portrait's size, such as the result for another face.",
                ),
                io.Image.Input("frames", tooltip="The animated square frames, from VAE Decode; upscaled ones (2x, 4x) work too."),
                Motion.Input("motion", tooltip="The motion with which these frames were made: it holds the square's position."),
                io.Float.Input(
                    "feather",
                    default=8.0,
                    min=0.0,
                    max=50.0,
                    step=0.5,
                    tooltip="Width of the soft edge in percent of the square's side. Sides on the picture's border have none.",
                ),
                io.Combo.Input(
                    "length",
                    options=LENGTHS,
                    default="longest",
                    tooltip="If picture and frames have different numbers of frames: 'longest' holds the last frame of the "
                    "shorter one, 'shortest' cuts the longer one. A single picture lasts as long as the frames.",
                    **advanced(),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the animation is shown (white): a mask of the picture's size, or a square one for the "
                    "animated square. The soft edge is applied as well.",
                ),
                io.Boolean.Input(
                    "even_size",
                    default=False,
                    optional=True,
                    tooltip="Drops the last column or row of a picture of odd width or height, which Save Video (mp4) refuses. "
                    "With several faces only where the last one is pasted.",
                    **advanced(),
                ),
                Keypoints.Input(
                    "driver_framing",
                    display_name="driving_framing",
                    optional=True,
                    tooltip="From Extract Face Motion: the result then has the driving video's frame size, with the face "
                    "at the position and size of the driving face. What the portrait does not show is black. With "
                    "several faces only for the last.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The picture in which the face moves."),
                io.Mask.Output(display_name="mask", tooltip="Where, and how strongly, the animation was blended into the picture."),
            ],
            **aliases("paste back", "live portrait composite", "composite face"),
        )

    @classmethod
    def execute(
        cls, frames, motion, feather, length, mask=None, even_size=False, driver_framing=None, picture=None
    ) -> io.NodeOutput:
        picture = images.rgb(portrait_of(motion) if picture is None else picture, "picture")
        frames = images.rgb(frames, "frames")
        one_of(LENGTHS, length, "length")
        finite(feather=feather)
        size, wanted = tuple(picture.shape[1:3]), tuple(motion.portrait_size)
        if size != wanted:
            raise InputError(
                f"The picture is {size[1]}x{size[0]} px; the motion was made for one of {wanted[1]}x{wanted[0]} px. Connect the "
                "portrait that went into Extract Face Motion, or frames of its size."
            )
        counts = [len(picture), len(frames), 1 if mask is None or mask.ndim < 3 else len(mask)]
        total = frames_out(counts, length)
        check_room(total, *size)
        progress = Progress(total)
        out, shown = paste(
            picture,
            frames,
            motion.portrait_to_frame,
            motion.maps.height,
            feather / 100,
            mask,
            length,
            lambda done, total: progress.to(done),
        )
        if driver_framing is not None:
            size = tuple(driver_framing.driver_size)
            check_room(total, *size)
            to_driver = portrait_to_driver(driver_framing, wanted)
            out, shown = reframe(out, to_driver, *size), reframe(shown[..., None], to_driver, *size)[..., 0]
        if even_size:
            height, width = (side // 2 * 2 for side in size)
            out, shown = out[:, :height, :width], shown[:, :height, :width]
        return io.NodeOutput(out, shown)


def portrait_to_driver(keypoints: KeypointsValue, size: tuple[int, int]) -> torch.Tensor:
    """(3, 3): portrait px -> driving frame px, by the crops of the two faces. InputError where the portrait is another one."""
    if keypoints.of_video:
        raise InputError("driving_framing is of a portrait video, which keeps its own framing. Disconnect it.")
    if tuple(keypoints.portrait_size) != size:
        height, width = keypoints.portrait_size
        raise InputError(
            f"driving_framing is of a portrait of {width}x{height} px and the motion of one of {size[1]}x{size[0]} px. Connect "
            "the KEYPOINTS that the motion was made from."
        )
    return torch.linalg.inv(keypoints.driver_crop) @ keypoints.portrait_crop


def check_room(frames: int, height: int, width: int) -> None:
    """Raises InputError where so many pictures do not fit into the free memory."""
    need = frames * height * width * 3 * torch.float32.itemsize
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if need > free:
        raise InputError(
            f"{frames} frames of {width}x{height} px take {need / 2**30:.1f} GB and {free / 2**30:.1f} GB are free. Animate "
            "fewer frames at a time, or bring the portrait down to a smaller size before everything else."
        )
