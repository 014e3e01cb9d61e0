"""A video as the portrait through the nodes: extracted, moved, rendered; the transformer's nodes refuse it."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from refusal import refused

FRAMES = 4
EXTRACTION = tiny.EXTRACTION | dict(portrait_box="70, 60, 60, 70")
MAPS = tiny.RELATIVE | dict(framing="auto")


@pytest.fixture(scope="module")
def vid2vid(host, pack):
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.vid2vid_file(pack, folder / "portrait_video.safetensors", num_kp=26)
    return host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"].execute(weights="portrait_video.safetensors").result[0]


def picture(frames: int, seed: int, height: int = 200, width: int = 190) -> torch.Tensor:
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def extract(run_node, vid2vid):
    def run(portrait=FRAMES, driver=FRAMES, **changes):
        given = dict(portrait=picture(portrait, 1), driver=picture(driver, 2, 120, 110)) | EXTRACTION
        return run_node("RealPortraitExtractKeypoints", vid2vid=vid2vid, **given | changes)

    return run


@pytest.fixture
def motion(run_node, vid2vid, extract):
    """Of a driving head that moves: a random M sees hardly any difference between frames."""
    found = extract()[0]
    g = torch.Generator().manual_seed(5)
    driver = replace(found.driver, expression=0.2 * torch.randn(FRAMES, 26, 3, generator=g))
    return run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=replace(found, driver=driver), **MAPS)[0]


@pytest.mark.parametrize("portrait, driver", [(4, 4), (6, 4), (3, 5)])
def test_the_shorter_video_decides(extract, portrait, driver):
    keypoints, preview, report = extract(portrait, driver)
    shorter = min(portrait, driver)
    assert keypoints.of_video and len(keypoints) == len(keypoints.portrait) == len(keypoints.picture) == shorter
    assert len(preview) == shorter
    assert f"Animated are {shorter} frames: the portrait video has {portrait} frames, the driving video {driver}." in report


def test_each_tile_of_the_preview_shows_its_frame(extract):
    preview = extract()[1]
    left = preview[:, :, : preview.shape[1]]
    assert all(not torch.equal(left[0], other) for other in left[1:])


def test_a_single_picture_is_no_video(extract):
    keypoints, _, report = extract(portrait=1)
    assert not keypoints.of_video and keypoints.portrait_crop.shape == (3, 3) and "portrait is a video" not in report


def test_one_driving_frame_takes_the_first_picture(extract):
    """With its own box, and the faces that another node found on it."""
    boxes = [[{"x": 60 + 5 * i, "y": 60, "width": 60, "height": 70}] for i in range(3)]
    keypoints, _, report = extract(portrait=3, driver=1)
    given = extract(portrait=3, driver=1, portrait_box="", portrait_boxes=boxes)[0]
    first = extract(portrait=1, driver=1, portrait_box="", portrait_boxes=boxes[:1])[0]
    assert not keypoints.of_video and len(keypoints) == 1 and "portrait is a video" not in report
    assert torch.equal(given.portrait_points, first.portrait_points) and len(given.picture) == 1


def test_another_nodes_boxes_of_every_frame(extract):
    """They place each frame's crop; missing frames are filled in as in the driving video."""
    boxes = [[{"x": 60 + 5 * i, "y": 60, "width": 60, "height": 70}] for i in range(6)]
    keypoints, _, report = extract(portrait=6, portrait_box="", portrait_boxes=boxes)
    assert len(keypoints) == FRAMES and float(keypoints.portrait_points[:, 2, 0].diff().min()) > 4
    assert "Face found in 6" not in report and "Face found in 4 of 4 frames." in report
    boxes[1] = []
    _, _, report = extract(portrait=6, portrait_box="", portrait_boxes=boxes)
    assert "Missing in frame 1: the last pose is held." in report


def test_it_is_rendered_in_every_frame(run_node, vid2vid, motion):
    """Around the face each frame stays as it was."""
    images, mask = run_node("RealPortraitRenderVid2Vid", vid2vid=vid2vid, motion=motion, result="portrait")
    video = picture(FRAMES, 1)
    assert images.shape == video.shape and mask.shape == video.shape[:3]
    assert torch.equal(images[mask == 0], video[mask == 0]) and not torch.equal(images, video)


def test_the_lips_alone(run_node, vid2vid, extract):
    """pose_gain, eye_gain and rest_gain at 0: x_d differs from the portrait's keypoints around the mouth only."""
    found = extract()[0]
    driver = replace(found.driver, expression=0.2 * torch.randn(FRAMES, 26, 3, generator=torch.Generator().manual_seed(5)))
    alone = dict(MAPS, pose_gain=0.0, eye_gain=0.0, rest_gain=0.0)
    x_d = [
        run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=replace(found, driver=driver), **given)[0].x_d
        for given in (alone, dict(alone, mouth_gain=0.0))
    ]
    moved = (x_d[0] - x_d[1]).abs().amax((0, 2)) > 1e-4
    assert moved.nonzero()[:, 0].tolist() == [4, 5, 6, 7, 8, 9]


def test_a_saved_motion_moves_a_portrait_video(run_node, vid2vid, extract):
    import folder_paths

    source = extract(portrait=1)[0]
    name = run_node("RealPortraitSaveMotion", keypoints=source, fps=12.5, filename_prefix="motion/video")[0]
    target = Path(folder_paths.get_input_directory()) / "portrait_video.safetensors"
    target.write_bytes((Path(folder_paths.get_output_directory()) / name).read_bytes())
    given = dict(vid2vid=vid2vid, file=target.name, portrait_face="largest", portrait_box=EXTRACTION["portrait_box"])
    keypoints, _, _, report = run_node("RealPortraitLoadMotion", portrait=picture(3, 1), **given)
    target.unlink()  # else it is on the menu of later tests
    assert keypoints.of_video and len(keypoints) == 3 and "a video of 3 frames; animated are 3" in report
    assert torch.equal(keypoints.driver.expression, source.driver.expression[:3])


def test_the_transformers_nodes_refuse_it(pack, run_node, motion):
    class VAE:
        def encode(self, pictures):
            raise AssertionError("a portrait video was encoded")

    with refused(pack, "of a portrait video of 4 frames, and RealPortrait animates a still portrait"):
        given = dict(vae=VAE(), portrait=picture(1, 1), motion=motion, start_frame=0, frames=4, strength=1.0)
        run_node("RealPortraitConditioning", **given)
    with refused(pack, "driving_framing is of a portrait video"):
        frames = torch.rand(FRAMES, 64, 64, 3)
        given = dict(picture=picture(1, 1), frames=frames, motion=motion, feather=8.0, length="longest")
        run_node("RealPortraitPasteBack", **given, driver_framing=motion.keypoints)


def test_errors_name_the_portrait_video(pack, extract):
    """Not the driving one: boxes without a face in any frame."""
    with refused(pack, "No face was found in any of the 4 portrait frames", "FaceError"):
        extract(portrait_box="", portrait_boxes=[[], [], [], []])
