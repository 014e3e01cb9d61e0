"""What crosses the border from other nodes: pictures in other forms, numbers that are none, faces that are no faces."""

import sys

import numpy as np
import pytest
import torch
from process_memory import memory, start_peak
from refusal import refused

IMAGE = torch.rand(2, 20, 24, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "form, wanted",
    [
        (lambda image: image.half(), lambda image: image.half().float()),
        (lambda image: image.bfloat16(), lambda image: image.bfloat16().float()),
        (lambda image: image.double(), lambda image: image),
        (lambda image: image.to(torch.float8_e4m3fn), lambda image: image.to(torch.float8_e4m3fn).float()),
        (lambda image: image > 0.5, lambda image: (image > 0.5).float()),
        (lambda image: image.transpose(1, 2).contiguous().transpose(1, 2), lambda image: image),
        (lambda image: image.repeat_interleave(2, 1)[:, ::2], lambda image: image),
        (lambda image: image[:1].expand(5, -1, -1, -1), lambda image: image[:1].repeat(5, 1, 1, 1)),
        (lambda image: image[0], lambda image: image[:1]),
        (lambda image: image * 3 - 1, lambda image: (image * 3 - 1).clamp(0, 1)),
        (lambda image: image[..., :1], lambda image: image[..., :1].repeat(1, 1, 1, 3)),
    ],
)
def test_pictures_in_other_forms(pack, form, wanted):
    given = form(IMAGE)
    assert given.dtype != torch.float32 or not given.is_contiguous() or given.shape != IMAGE.shape or given.max() > 1
    found = pack("nodes.host.images").rgb(given, "portrait")
    assert found.dtype == torch.float32 and found.is_contiguous() and torch.equal(found, wanted(IMAGE))


@pytest.mark.parametrize(
    "value, said",
    [
        ((IMAGE * 255).byte(), "values of the type torch.uint8.*Divide whole numbers by 255"),
        ((IMAGE * 255).long(), "values of the type torch.int64"),
        (IMAGE.to(torch.complex64), "values of the type torch.complex64"),
        (IMAGE.to_sparse(), "with the layout torch.sparse_coo"),
        (IMAGE.to("meta"), "a tensor without values"),
        (IMAGE[0, 0], r"this one is \(24, 3\)"),
        (IMAGE[None], "this one is"),
        (IMAGE[..., :2], "2 channels"),
        (IMAGE[:0], "0 frames"),
        (IMAGE[:, :, :0], "0x20 px"),
        (IMAGE[:, :15], "24x15 px; both sides must be at least 16"),
        (IMAGE.half(), "of 2 frames of the portrait hold NaN or infinite"),
        (IMAGE.double() * 1e300, "2 of 2 frames of the portrait hold NaN or infinite values, frame 0 first"),
        (torch.where(IMAGE > 0.9999, torch.inf, IMAGE), "of 2 frames of the portrait hold NaN or infinite"),
        (IMAGE.numpy(), "must be an IMAGE; this is a ndarray"),
        ([IMAGE], "must be an IMAGE; this is a list"),
        (None, "must be an IMAGE; this is a NoneType"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(pack, value, said):
    if isinstance(value, torch.Tensor) and "NaN" in said:
        value.view(-1)[7] = {torch.float64: 1e300, torch.float16: torch.nan}.get(value.dtype, torch.inf)
    with refused(pack, said):
        pack("nodes.host.images").rgb(value, "portrait")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nan_passes_the_hosts_limits_and_not_ours(pack, number):
    run = pack("nodes.host.run")
    assert not (number < 0 or number > 2) or number == float("inf")  # as the host compares with min and max
    with refused(pack, f"pose_gain is {number}; it must be a finite number"):
        run.finite(yaw=1.0, pose_gain=number)
    run.finite(yaw=1, pose_gain=-2.5)


@pytest.mark.parametrize("value", [None, 7, ["largest"], {"largest": 1}, "x" * 10**5])
def test_a_menus_value_of_another_type(pack, value):
    """The host does not check a menu's value."""
    with refused(pack, "portrait_face is .*; it must be one of: largest, only") as caught:
        pack("nodes.host.run").one_of({"largest": 0, "only": 1}, value, "portrait_face")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["nan 1 50 50", "1e999, 0, 5, 5", "0 0 1e7 5", "-1e30 0 5 5"])
def test_a_box_of_numbers_that_are_no_places(pack, text):
    with refused(pack, "must be four finite numbers, at most 1e.06 px"):
        pack("nodes.host.images").box(text, "portrait_box")


@pytest.mark.parametrize(
    "value, said",
    [
        ({"frames": [[]], "image_size": 64}, "has the image_size 64"),
        ({"frames": [[]], "image_size": (64,)}, "has the image_size"),
        ({"frames": [[]], "image_size": ["a", "b"]}, "has the image_size"),
        ({"x": 10**400, "y": 0, "width": 5, "height": 5}, "a box must have numbers of pixels"),
        ({"frames": [[{"landmarks_xy": [["a", "b"]] * 5}]]}, "landmarks_xy must be numbers"),
        ({"frames": [[{"landmarks_xy": np.zeros(2, object)}]]}, "landmarks_xy must be numbers"),
        ({"frames": [[{"landmarks_xy": np.full((478, 2), np.nan)}]]}, "face coordinates are NaN"),
    ],
)
def test_faces_that_are_none(pack, value, said):
    with refused(pack, said):
        pack("nodes.host.faces").portrait_faces(value, 64, 64, "portrait_boxes")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read as on Linux")
def test_a_huge_driving_video_of_a_motion_file_is_shown_small(pack):
    """65,536 px square, of one value: to draw on it took 50 GB."""
    start_peak()
    black = torch.zeros(()).expand(65536, 65536, 3)
    points, crop = torch.rand(5, 2) * 65536, torch.eye(3, dtype=torch.float64)
    before = memory("VmRSS")
    assert pack("nodes.host.draw").tile(black, crop, points).shape == (384, 384, 3)
    assert memory("VmHWM") - before < 2 * 2**30
