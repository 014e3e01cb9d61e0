"""YuNet in torch beside OpenCV's FaceDetectorYN with the same file, and the reading of that file."""

import functools

import numpy as np
import pytest
import torch
import yunet as fetched
from PIL import Image

from realportrait_core.errors import WeightsError
from realportrait_core.face import yunet
from realportrait_core.face.detect import NMS_IOU, SCORE_RETRY, FaceDetector
from realportrait_core.face.onnx_file import initializers
from realportrait_core.face.resize import resize_levels


@pytest.fixture(scope="module")
def network() -> yunet.YuNet:
    return yunet.load(fetched.onnx())


@functools.cache
def portrait() -> np.ndarray:
    return np.array(Image.open(fetched.ROOT / "assets" / "portrait.png").convert("RGB"))


@functools.cache
def clip(seed: int) -> list[np.ndarray]:
    av = pytest.importorskip("av")
    with av.open(str(fetched.ROOT / "tests" / "data" / f"{seed}.mp4")) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def ours(network: yunet.YuNet, picture: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Rows (n, 15) of a picture that is resized to height x width px."""
    resized = resize_levels(torch.from_numpy(picture), height, width).flip(2).permute(2, 0, 1)
    return yunet.detect(network, resized, SCORE_RETRY, NMS_IOU)


def opencvs(picture: np.ndarray, height: int, width: int) -> torch.Tensor:
    cv2 = pytest.importorskip("cv2")
    shrinks = height <= picture.shape[0] and width <= picture.shape[1]
    filtering = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(picture[..., ::-1]), (width, height), interpolation=filtering)
    detector = cv2.FaceDetectorYN.create(str(fetched.onnx()), "", (width, height), SCORE_RETRY, NMS_IOU, yunet.MOST)
    rows = detector.detect(resized)[1]
    return torch.zeros(0, 15) if rows is None else torch.from_numpy(rows)


@pytest.mark.parametrize(
    "picture, sizes, faces",
    [
        (portrait, [(512, 512), (256, 256), (96, 96), (513, 511), (640, 333)], 1),
        (lambda: clip(800000)[0], [(512, 512), (256, 256)], 1),
        (lambda: clip(810000)[7], [(512, 512), (256, 256)], 1),
        (lambda: np.concatenate([clip(810000)[0], clip(800000)[0]], 1), [(256, 512), (320, 640)], 2),
        (lambda: np.concatenate([portrait()] * 5, 0).repeat(2, 0).repeat(2, 1), [(640, 128), (1280, 256)], 5),
        (lambda: np.ascontiguousarray(np.rot90(portrait())), [(512, 512)], 1),
        (lambda: noise(300, 400), [(384, 512)], 0),
        (lambda: noise(1, 5), [(102, 512)], 0),
    ],
    ids=["portrait", "head", "turned", "two", "five", "rotated", "noise", "tiny"],
)
def test_finds_what_opencv_finds(network, picture, sizes, faces):
    """Odd sizes are padded; the rotated portrait is a doubtful face, which one level of a pixel more or less moves by 0.5 px."""
    for height, width in sizes:
        mine, theirs = ours(network, picture(), height, width), opencvs(picture(), height, width)
        assert len(mine) == len(theirs) == faces
        torch.testing.assert_close(mine[:, :14], theirs[:, :14], atol=0.1, rtol=0)
        torch.testing.assert_close(mine[:, 14], theirs[:, 14], atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", [800000, 810000])
def test_every_frame_of_a_clip_as_opencv_has_it(network, seed):
    """Heads that turn away included."""
    for frame in clip(seed)[::3]:
        mine, theirs = ours(network, frame, 512, 512), opencvs(frame, 512, 512)
        assert len(mine) == len(theirs)
        torch.testing.assert_close(mine[:, :14], theirs[:, :14], atol=0.1, rtol=0)
        torch.testing.assert_close(mine[:, 14], theirs[:, 14], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "old, new",
    [((256, 256), (512, 512)), ((256, 200), (640, 333)), ((1, 5), (102, 512)), ((513, 511), (513, 512)), ((641, 640), (640, 640))]
    + [((1080, 1920), (360, 640)), ((720, 1280), (360, 640)), ((900, 700), (640, 498)), ((64, 64), (64, 64))],
)
def test_resizes_to_the_levels_of_opencv(old, new):
    """To the last bit where it enlarges. Of an uneven average sums in another order round otherwise, by one level, rarely."""
    cv2 = pytest.importorskip("cv2")
    picture = noise(*old)
    enlarges = new[0] > old[0] or new[1] > old[1]
    theirs = cv2.resize(picture, new[::-1], interpolation=cv2.INTER_LINEAR if enlarges else cv2.INTER_AREA)
    off = (resize_levels(torch.from_numpy(picture), *new) - torch.from_numpy(theirs)).abs()
    assert off.max() <= (0 if enlarges else 1) and float((off > 0).float().mean()) < 2e-4


def test_same_result_every_time_and_no_random_number_is_drawn():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    detector = FaceDetector(fetched.onnx())
    (one,), (other,) = (detector.detect(portrait()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.points, other.points) and one.score == other.score
    assert not one.points.is_inference() and not one.box.is_inference()  # they are computed with outside


def test_suppression_keeps_the_best_of_boxes_that_overlap():
    found = torch.zeros(4, 15)
    found[:, :4] = torch.tensor([[0, 0, 10, 10], [3, 0, 10, 10], [40, 0, 10, 10], [6, 0, 10, 10.0]])
    assert yunet.suppress(found, 0.3).tolist() == found[[0, 2, 3]].tolist()  # overlaps with the first: 0.54, 0, 0.25
    assert torch.equal(yunet.suppress(found, 0.6), found)
    assert yunet.suppress(found[:0], 0.3).shape == (0, 15)


# The file


@pytest.mark.parametrize(
    "change, size",
    [
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "43 bytes"),
        (lambda data: data[:-1], "232588 bytes"),
        (lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:], "232589 bytes"),
        (lambda data: data + bytes(10**6), "more bytes"),
        (lambda data: b"", "0 bytes"),
    ],
)
def test_any_other_file_is_refused(tmp_path, change, size):
    path = tmp_path / fetched.NAME
    path.write_bytes(change(fetched.onnx().read_bytes()))
    with pytest.raises(WeightsError, match=f"is not the face detector.*{size}.*232589 bytes and 8f2383.*python install.py"):
        FaceDetector(path)


def test_the_float_tensors_are_read():
    tensors = initializers(fetched.onnx().read_bytes())
    assert sum(tensor.numel() for tensor in tensors.values()) == sum(p.numel() for p in yunet.load(fetched.onnx()).parameters()) + 8
    assert tensors["420"].shape == (16, 3, 3, 3) and tensors["bbox_head.multi_level_kps.2.conv2.bias"].shape == (10,)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"\x3a\x05ab", "of 4 bytes is cut short: a field ends at 7"),
        (b"\x3a\x80", "no end at byte 2"),
        (b"\x3b", "unknown wire type 3"),
        # A graph with the tensor x of one float, which has three bytes.
        (b"\x3a\x0e\x2a\x0c\x08\x01\x10\x01\x42\x01x\x4a\x03abc", r"tensor x of shape \[1\] has 3 bytes"),
    ],
)
def test_what_is_cut_short_is_refused(data, message):
    with pytest.raises(WeightsError, match=message):
        initializers(data)
