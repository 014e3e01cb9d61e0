"""Judge Animation in the host's process, on a tiny motion extractor: what goes in, what is told, progress and cancelling."""

import json
import shutil
import sys
from pathlib import Path

import demo_media
import judges
import pytest
import tiny
import torch
import yunet
from refusal import refused

FRAMES = 4


@pytest.fixture(scope="module")
def folder(host, pack) -> Path:
    """models/realportrait, with the face detector and tiny weights."""
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    shutil.copy(yunet.onnx(), folder)
    tiny.vid2vid_file(pack, folder / "tiny_for_judging.safetensors")
    yield folder
    (folder / yunet.NAME).unlink()  # other tests ask for a host without it


@pytest.fixture
def own(folder) -> Path:
    """The folder of the judges' files, empty."""
    path = folder / "judges"
    path.mkdir()
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@pytest.fixture(scope="module")
def driving() -> torch.Tensor:
    return demo_media.pictures(FRAMES)[1]


@pytest.fixture
def judge(run_node, folder, driving):
    vid2vid = run_node("RealPortraitLoadVid2Vid", weights="tiny_for_judging.safetensors")[0]

    def run(**changes):
        given = {"portrait": driving[:1], "driving_video": driving, "result": driving, "vid2vid": vid2vid}
        return run_node("RealPortraitJudge", **given | changes)

    return run


def test_without_any_judges_file(judge):
    """The table says how to get them; the rest of it is there."""
    table, strip, figures = judge()
    assert table.startswith("Frames that are judged: 4. With a face: portrait 1 of 1, driving video 4 of 4, result 4 of 4.")
    for told in (
        "| head pose error, degrees ↓",
        ".onnx into models/realportrait/judges",
        "face_landmarker.task",
        "connect the truth",
    ):
        assert told in table
    assert strip.shape == (1, 2 * 344, (1 + 4) * 320, 3)
    told = json.loads(figures)
    assert len(told["frames"]["head_deg"]) == 4 and set(told["left_out"]) == {
        "identity similarity",
        "head pose, expression and mouth by landmarks",
        "PSNR, SSIM, ST-LPIPS, spectrum",
    }


def test_the_truth_adds_its_figures(judge, driving):
    without = judge()[0]
    table, strip, _ = judge(truth=driving)
    assert "PSNR" not in without.partition("Left out")[0]
    assert "| PSNR, dB ↑ " in table and "100.00" in table and "flicker of the truth there" in table and "stlpips-pytorch" in table
    assert strip.shape[1] == 3 * 344


def test_seams_and_drift_are_those_of_the_clips(judge, pack):
    """Of 4 frames: two clips of 3 share a frame; in one clip, and in frames that were made at once, there is no seam."""
    table, _, figures = judge(clip_frames=3)
    assert "| seam between clips, picture ↓" in table and "By clips of the network" in table
    assert [clip["frames"] for clip in json.loads(figures)["clips"]] == ["0-2", "3-3"]
    for clip_frames in (0, 16):
        assert "seam between" not in judge(clip_frames=clip_frames)[0]
    with refused(pack, "must be between 1 and 0, below the clip's 1"):
        judge(clip_frames=1)


def test_judges_are_found_in_their_folder(judge, own, host):
    """Each by its name, loaded for the run; a file that comes later makes the node run again."""
    node = host.NODE_CLASS_MAPPINGS["RealPortraitJudge"]
    given = dict(portrait=None, driving_video=None, result=None, vid2vid=None)
    before = node.fingerprint_inputs(**given)
    (own / "face-api").symlink_to(judges.face_api())
    (own / "broken.onnx").write_bytes(b"no network")
    assert node.fingerprint_inputs(**given) != before
    table, _, figures = judge()
    assert "| identity similarity ↑ (face-api) " in table and "Left out, identity" not in table
    assert json.loads(figures)["frames"]["identity_similarity"][0] == pytest.approx(1.0, abs=0.02)


def test_a_damaged_file_costs_its_figure_alone(judge, own):
    (own / "face_landmarker.task").write_bytes(b"no zip")
    table = judge()[0]
    assert "Left out, head pose, expression and mouth by landmarks" in table and "is not MediaPipe's face_landmarker.task" in table
    assert "| head pose error, degrees ↓" in table


def test_without_opencv(judge, own, monkeypatch):
    """The figures that need it are left out, in a sentence."""
    (own / "face_landmarker.task").write_bytes(b"")
    (own / "sface.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "cv2", None)
    table = judge()[0]
    assert table.count("OpenCV cannot be imported") == 2 and "| head pose error, degrees ↓" in table


def test_what_a_socket_may_carry(judge, driving, pack):
    """An alpha channel is laid over white, of a batch of portraits the first counts, the common frames are judged."""
    alpha = torch.cat([driving, torch.ones_like(driving[..., :1])], -1)
    table, _, figures = judge(portrait=alpha[:2], result=alpha[:3])
    assert "The portrait is a batch of 2 pictures: the first is taken." in table
    assert "Of frames the driving video has 4, the result has 3: the first 3 are judged." in table
    assert max(json.loads(figures)["frames"]["head_deg"]) < 0.1
    broken = driving.clone()
    broken[2, 0, 0] = torch.nan
    with refused(pack, "1 of 4 frames of the result hold NaN or infinite values, frame 2 first"):
        judge(result=broken)
    with refused(pack, "The result has 0 frames"):
        judge(result=driving[:0])


def test_faceless_pictures_and_one_frame(judge, driving):
    noise = torch.rand(3, 256, 256, 3, generator=torch.Generator().manual_seed(0))
    table, strip, _ = judge(result=noise)
    assert "result 0 of 3" in table and "No face was found in any of the 3 result frames" in table and "| head pose" not in table
    assert strip.shape[2] == (1 + 3) * 320
    table, strip, _ = judge(result=driving[:1])
    assert "One frame: " in table and strip.shape[2] == (1 + 1) * 320


def test_progress_and_cancelling(judge):
    import comfy.model_management as management
    import comfy.utils

    ticks, stop = [], []

    def hook(value, total, preview, node_id=None):
        ticks.append((value, total))
        if stop and value >= stop[0]:
            management.interrupt_current_processing(True)

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        judge()
        assert ticks == sorted(ticks) and ticks[-1] == (20, 20) and len(ticks) >= 10
        stop.append(6)
        ticks.clear()
        with pytest.raises(management.InterruptProcessingException):
            judge()
        assert ticks[-1] == (6, 20)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        management.interrupt_current_processing(False)
