"""The portrait from a file, or the one that comes with the pack."""

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageOps

from ..realportrait_core.errors import InputError
from .host import folders, media
from .host.newer import aliases

NO_MASK = (1, 64, 64)  # the host's MASK for a picture without transparency


class LoadPortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitLoadPortrait",
            display_name="Load Portrait",
            category="RealPortrait",
            description="Loads the picture to animate, upright: a file of your own, or an example that comes with the pack.",
            inputs=[
                io.Combo.Input(
                    "image",
                    options=[*media.PICTURES, *media.input_pictures()],
                    upload=io.UploadType.image,
                    image_folder=io.FolderType.input,
                    tooltip="An example of the pack, or a picture of ComfyUI's input folder; the button below uploads one.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, upright, without its transparency."),
                io.Mask.Output(display_name="mask", tooltip="Where the picture is transparent: 1. As Load Image gives it."),
            ],
            **aliases("load image", "source image", "reference image", "portrait image", "live portrait source"),
        )

    @classmethod
    def validate_inputs(cls, image):
        return folders.problem(media.picture_path, image)

    @classmethod
    def fingerprint_inputs(cls, image):
        return folders.stamp(media.picture_path(image))

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        return io.NodeOutput(*read_picture(media.picture_path(image)))


def read_picture(path) -> tuple[torch.Tensor, torch.Tensor]:
    """IMAGE (1, H, W, 3) and MASK (1, H, W), as the host's Load Image makes them of a file's first picture.

    Raises InputError for a file that Pillow cannot read.
    """
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            if upright.mode.startswith("I"):  # grey of 16 bits
                upright = upright.point(lambda value: value * (1 / 255))
            colours = np.array(upright.convert("RGB"), np.float32) / 255
            transparent = "A" in upright.getbands() or (upright.mode == "P" and "transparency" in upright.info)
            alpha = np.array(upright.convert("RGBA").getchannel("A"), np.float32) / 255 if transparent else None
    except Exception as error:  # Pillow's many decoders raise anything for a damaged file
        raise InputError(
            f"{path.name} cannot be read as a picture: {str(error).rstrip('. ')}. Copy it again, or convert it."
        ) from error
    mask = torch.zeros(NO_MASK) if alpha is None else 1 - torch.from_numpy(alpha)[None]
    return torch.from_numpy(colours)[None], mask
