"""Pictures of odd sizes, of nothing, and of every kind of file, through the whole line of nodes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusal import refused

LOAD = "RealPortraitLoadPortrait"


@pytest.fixture
def folder(host) -> Path:
    import folder_paths

    return Path(folder_paths.get_input_directory())


# 9: odd sizes


@pytest.mark.parametrize("height, width", [(511, 513), (513, 511), (257, 131)])
def test_output_has_the_portraits_size_and_the_drivings_length(files, whole, height, width):
    """Neither is a multiple of 8 or 16, nor are the driving frames, and 17 frames are a clip and one frame more."""
    portrait, driving = files.picture(1, height, width), files.picture(17, 107, 101)
    motion = whole.motion(whole.keypoints(portrait, driving))
    for frames in (whole.frames(motion), whole.rendered(motion)):
        assert frames.shape == (17, height, width, 3)
        assert torch.isfinite(frames).all() and 0 <= float(frames.min()) and float(frames.max()) <= 1
    covered = whole.node("PasteBack", frames=torch.zeros(1, 64, 64, 3), motion=motion, feather=0.0, length="longest")
    outside = (covered[0] != 0).any(-1)
    assert outside.any() and torch.equal(whole.frames(motion)[3][outside], portrait[0][outside])


# 12: black, constant and equal frames


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0], ids=["black", "grey", "white"])
@pytest.mark.parametrize("mode", ["relative", "paper-absolute"])
def test_constant_frames_end_in_finite_frames(whole, value, mode):
    portrait, driving = torch.full((1, 150, 140, 3), value), torch.full((3, 120, 110, 3), value)
    assert float(driving.std()) == float(portrait.std()) == 0
    motion = whole.motion(whole.keypoints(portrait, driving), mode=mode)
    for frames in (whole.frames(motion), whole.rendered(motion)):
        assert frames.shape == (3, 150, 140, 3) and torch.isfinite(frames).all()
    assert torch.isfinite(whole.latents(motion, guidance=2.0)).all()


def test_equal_driving_frames_leave_the_pose_where_it_is(files, whole):
    driving = files.picture(1, 120, 110).expand(4, -1, -1, -1)
    keypoints = whole.keypoints(files.picture(1, 150, 140), driving)
    motion = whole.motion(keypoints)
    assert torch.equal(motion.x_d, motion.x_d[:1].expand_as(motion.x_d)) and torch.isfinite(whole.frames(motion)).all()
    for edit in (dict(head_size="constant"), dict(head_size="steady", smooth_head=2.0, smooth_expression=1.0)):
        given = dict(head_size="driven", smooth_head=0.0, smooth_expression=0.0, smooth_track=0.0, mirror=False)
        edited = whole.node("EditMotion", keypoints=keypoints, **{**given, **edit})
        assert torch.isfinite(whole.motion(edited).maps.f).all()


# 10: every kind of picture file

TURNS = {  # EXIF orientation -> what undoes it, as rows of the upright picture
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.fixture(scope="module")
def colours() -> np.ndarray:
    """(40, 30, 3) uint8, smooth, so that JPEG keeps it, and different in each corner."""
    y, x = np.mgrid[0:1:40j, 0:1:30j]
    return (np.stack([x, y, 1 - (x + y) / 2], -1) * 255).astype(np.uint8)


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_photograph_stands_upright(run_node, folder, colours, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(colours).save(folder / f"turned{turn}.png", exif=exif)
    image, _ = run_node(LOAD, image=f"turned{turn}.png")
    assert np.array_equal((image[0].numpy() * 255).round().astype(np.uint8), TURNS[turn](colours))


@pytest.mark.parametrize(
    "mode, suffix",
    [("L", "png"), ("1", "png"), ("P", "png"), ("P", "gif"), ("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "jpg"), ("RGB", "webp")],
)
def test_every_colour_model_becomes_rgb(host, run_node, folder, colours, mode, suffix):
    """As the host's own Load Image makes it."""
    file = folder / f"{mode}.{suffix}"
    Image.fromarray(colours).convert(mode).save(file, **(dict(quality=100, subsampling=0) if suffix == "jpg" else {}))
    with Image.open(file) as stored:
        assert stored.mode == mode or suffix in ("jpg", "gif") and mode in ("YCbCr", "P")
    image, mask = run_node(LOAD, image=file.name)
    assert image.shape == (1, 40, 30, 3) and image.dtype == torch.float32 and 0 <= float(image.min()) <= float(image.max()) <= 1
    assert not mask.any()
    expected = colours if mode in ("CMYK", "YCbCr", "RGB") else np.array(Image.fromarray(colours).convert(mode).convert("RGB"))
    assert np.abs(image[0].numpy() * 255 - expected).mean() < 3
    assert torch.equal(image, host.NODE_CLASS_MAPPINGS["LoadImage"]().load_image(file.name)[0])


def test_transparency_is_a_mask_beside_the_colours(host, run_node, folder, colours):
    """Load Portrait keeps the colours and gives transparency as a mask; an IMAGE of 4 channels is laid over white."""
    alpha = np.full((40, 30, 1), 255, np.uint8)
    alpha[:20] = 51
    for mode, suffix in (("RGBA", "png"), ("LA", "png"), ("RGBA", "webp")):
        Image.fromarray(np.concatenate([colours, alpha], -1)).convert(mode).save(folder / f"{mode}.{suffix}")
        image, mask = run_node(LOAD, image=f"{mode}.{suffix}")
        assert all(map(torch.equal, (image, mask), host.NODE_CLASS_MAPPINGS["LoadImage"]().load_image(f"{mode}.{suffix}")))
        assert image.shape == (1, 40, 30, 3) and mask.shape == (1, 40, 30)
        assert torch.allclose(mask[0, :20], torch.tensor(0.8)) and not mask[0, 20:].any()


def test_the_first_picture_of_an_animation_is_the_portrait(run_node, folder, colours):
    frames = [Image.fromarray(colours), Image.fromarray(255 - colours)]
    frames[0].save(folder / "two.png", save_all=True, append_images=frames[1:])
    image, _ = run_node(LOAD, image="two.png")
    assert np.array_equal((image[0].numpy() * 255).round().astype(np.uint8), colours)


# 8: a file that claims to be huge


@pytest.mark.parametrize("side", [16384, 65535])
def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(pack, run_node, folder, side):
    """A few bytes, whose header says side x side px: 0.8 GB and 12.9 GB as bytes."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    claimed = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    (folder / "claimed.png").write_bytes(claimed)
    with refused(pack, rf"claimed.png cannot be read as a picture: .*{side * side} pixels"):
        run_node(LOAD, image="claimed.png")


def test_a_header_that_pillow_has_no_error_for(pack, run_node, folder):
    """A DDS texture of an unknown form, under another ending: NotImplementedError."""
    path = folder / "texture.png"
    Image.new("RGBA", (32, 32)).save(path, "DDS")
    content = path.read_bytes()
    path.write_bytes(content[:80] + bytes(4) + content[84:])  # flags of the pixel format
    with pytest.raises(NotImplementedError):
        Image.open(path).load()
    with refused(pack, "texture.png cannot be read as a picture: .*Copy it again, or convert it"):
        run_node(LOAD, image=path.name)


@pytest.mark.parametrize("kept", [10, 60, 200])
def test_a_picture_cut_short_is_refused(pack, run_node, folder, colours, kept):
    Image.fromarray(colours).save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    assert kept < len(content)
    (folder / "cut.png").write_bytes(content[:kept])
    with refused(pack, "cut.png cannot be read as a picture"):
        run_node(LOAD, image="cut.png")


# 11: what an IMAGE socket may carry


def test_images_of_any_layout_and_type_are_the_same_picture(files, whole, caplog):
    """Half precision, double, other strides, a missing batch axis: the keypoints of the same levels are the same."""
    levels = (files.picture(1, 150, 140) * 255).round() / 256  # exact in half precision
    driving = files.picture(2, 120, 110)
    expected = whole.keypoints(levels, driving).portrait
    strided = levels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not strided.is_contiguous()
    for same in (levels.half(), levels.double(), strided, levels[0], levels.flip(2).flip(2)):
        found = whole.keypoints(same, driving).portrait
        assert torch.equal(found.expression, expected.expression) and torch.equal(found.rotation, expected.rotation)
    assert "clamped" not in caplog.text
    whole.keypoints(levels * 2, driving)
    assert "The portrait has values from 0 to 1.99; it is clamped to 0..1." in caplog.text


def test_images_that_cannot_be_used_are_refused(files, whole, pack):
    """Of every kind: test_borders.py."""
    with refused(pack, "1 of 1 frames of the portrait hold NaN or infinite values"):
        whole.keypoints(torch.full((1, 150, 140, 3), torch.nan), files.picture(2, 120, 110))
    with refused(pack, "2 of 2 frames of the driving video hold NaN or infinite values"):
        whole.keypoints(files.picture(1, 150, 140), torch.full((2, 120, 110, 3), torch.inf))
