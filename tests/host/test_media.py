"""Load Portrait, and which files the loaders offer: those of the input folder, what was saved, and the examples of the pack."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

NODE = "RealPortraitLoadPortrait"


@pytest.fixture(scope="module")
def pictures(host) -> list[str]:
    """In the input folder: with transparency in two ways, turned by EXIF, grey of 16 and of 8 bits, and below a folder."""
    import folder_paths

    folder = Path(folder_paths.get_input_directory())
    (folder / "below").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    turned = Image.Exif()
    turned[0x0112] = 6  # by 90 degrees
    rgba.save(folder / "rgba.png")
    rgba.convert("RGB").quantize(16).save(folder / "palette.png", transparency=3)
    rgba.convert("RGB").save(folder / "turned.jpg", exif=turned)
    rgba.convert("L").save(folder / "grey.png")
    Image.fromarray(noise[..., 0].astype(np.int32) * 257).save(folder / "grey16.tif")
    rgba.save(folder / "below" / "masked.png")
    return ["rgba.png", "palette.png", "turned.jpg", "grey.png", "grey16.tif", "below/masked.png [input]"]


@pytest.mark.parametrize("number", range(6))
def test_a_portrait_is_what_load_image_gives(host, run_node, pictures, number):
    name = pictures[number]
    image, mask = run_node(NODE, image=name)
    expected = host.NODE_CLASS_MAPPINGS["LoadImage"]().load_image(name)
    assert torch.equal(image, expected[0]) and torch.equal(mask, expected[1])
    assert host.NODE_CLASS_MAPPINGS[NODE].validate_inputs(image=name) is True


def test_grey_of_16_bits_is_not_white(run_node):
    """Pillow's own conversion clips it, and so Load Image shows it white."""
    import folder_paths

    ramp = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(Path(folder_paths.get_input_directory(), "grey16.png"))
    assert 0.4 < float(run_node(NODE, image="grey16.png")[0].mean()) < 0.6


def test_the_examples_come_first_and_load(host, run_node, pack, pictures):
    """So the first entry of an empty host's menu is a portrait; the button's option is there."""
    media = pack("nodes.host.media")
    _, options = host.NODE_CLASS_MAPPINGS[NODE].INPUT_TYPES()["required"]["image"]
    assert options["options"][:2] == ["example: portrait.png", "example: two_faces.jpg"] and options["image_upload"]
    assert {"rgba.png", "turned.jpg"} <= set(options["options"])
    assert run_node(NODE, image="example: portrait.png")[0].shape == (1, 256, 256, 3)
    assert run_node(NODE, image="example: two_faces.jpg")[0].shape == (1, 256, 512, 3)
    frames, _, fps, count, _ = run_node(
        "RealPortraitLoadDrivingVideo",
        file="example: driving.mp4",
        start=0.0,
        start_in="seconds",
        frames=2,
        stride=1,
        fps=0.0,
        longest_side=0,
    )
    assert (frames.shape, fps, count) == ((2, 256, 256, 3), 12.5, 2)
    served = Path(host.EXTENSION_WEB_DIRS[media.SERVED])
    assert all(file.parent == served and file.is_file() for file in (media.PICTURES | media.VIDEOS | media.MOTIONS).values())


@pytest.mark.parametrize(
    "name", ["../outside.png", "/etc/passwd", "below", "", "rgba.png\0", "example: ../README.md", "x.png [output]"]
)
def test_nothing_else_is_opened(host, pack, run_node, pictures, name):
    import folder_paths

    Image.new("RGB", (20, 20)).save(Path(folder_paths.get_input_directory()).parent / "outside.png")
    said = host.NODE_CLASS_MAPPINGS[NODE].validate_inputs(image=name)
    assert isinstance(said, str) and "There is no picture" in said
    with pytest.raises(pack("realportrait_core.errors").InputError, match="There is no picture"):
        run_node(NODE, image=name)


def test_a_file_that_is_no_picture(host, pack, run_node):
    import folder_paths

    Path(folder_paths.get_input_directory(), "words.png").write_text("no picture")
    with pytest.raises(pack("realportrait_core.errors").InputError, match="words.png cannot be read as a picture"):
        run_node(NODE, image="words.png")


def test_what_was_saved_is_offered_and_models_are_not(pack):
    import shutil

    import folder_paths

    media, output = pack("nodes.host.media"), Path(folder_paths.get_output_directory())
    weights = pack("nodes.host.folders").WEIGHTS / "vae" / "realportrait_mini_vae.safetensors"
    for source, name in ((media.EXAMPLES / "motion.safetensors", "faces/mine.safetensors"), (weights, "vae/vae.safetensors")):
        (output / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, output / name)
    offered = media.motions()
    assert offered["faces/mine.safetensors [output]"] == output / "faces" / "mine.safetensors"
    assert not any("vae" in name for name in offered)
    assert next(iter(offered)) == "example: motion.safetensors"
    assert all(media.motion_path(name) == path for name, path in offered.items())
    outside = output.parent / "outside.safetensors"
    shutil.copy(media.EXAMPLES / "motion.safetensors", outside)
    names = ("vae/vae.safetensors", "../outside.safetensors", str(outside), "faces/mine.safetensors\0", "faces", "")
    for name in [*names, *(f"{name} [output]" for name in names)]:
        with pytest.raises(pack("realportrait_core.errors").InputError, match="is not one of the motions in"):
            media.motion_path(name)
