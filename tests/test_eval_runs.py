"""`python -m realportrait_core.eval report`: its cases, figures of rows, resuming, failures; with tiny networks."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_sizes
import videos
import yunet
from PIL import Image

from realportrait_core.batch.worker import Weights
from realportrait_core.config import AblationConfig, ConditionerConfig, DiTConfig, Vid2VidConfig
from realportrait_core.dit.ablation import network_of, save_network
from realportrait_core.dit.checkpoint import save_dit
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import InputError, RealPortraitError
from realportrait_core.eval import __main__ as command
from realportrait_core.eval.cases import Case, read_clip
from realportrait_core.eval.columns import COLUMNS
from realportrait_core.eval.judges.estimators import FaceParameters
from realportrait_core.eval.judges.smirk import SmirkFolder
from realportrait_core.eval.methods.results import Result
from realportrait_core.eval.metrics.frames import opening_correlation
from realportrait_core.eval.record import CaseRecord, read_record
from realportrait_core.eval.repeats import unique
from realportrait_core.eval.report.pictures import read_layout
from realportrait_core.eval.rows import DRIVING, REALPORTRAIT, STATIC, TRUTH
from realportrait_core.eval.run import spread
from realportrait_core.eval.run.figures import Compared, Row, filled, row_figures
from realportrait_core.eval.run.measure import on_all_frames
from realportrait_core.eval.run.observe import Observed, observe
from realportrait_core.eval.run.picture_judges import on_frames, some
from realportrait_core.eval.run.prepare import SIZE, Prepared, View, as_compared, centres, framed
from realportrait_core.eval.run.setup import Setup
from realportrait_core.eval.run.smirk_figures import with_smirk
from realportrait_core.eval.run.spread import FAILED, run_cases
from realportrait_core.eval.run.tables import LONG, MOST, TABLES, Job, Sources, report_jobs
from realportrait_core.face.landmarks import LOWER_INNER
from realportrait_core.vae import TinyVAE, save_vae
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import save_vid2vid
from realportrait_core.vid2vid.motion import MotionExtractor
from realportrait_core.vid2vid.regions import LIPS

CLIPS = yunet.ROOT / "tests" / "data"
ROWS = ["static portrait", "VAE round trip", "Face Vid2vid", "motion latents", "RealPortrait"]


# Tables


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_each_table_has_its_cases(tmp_path):
    data = touch(tmp_path / "heads", "800000.mp4", "800001.mp4", "810001.mp4")
    clips = touch(tmp_path / "real", "a.mp4", "b.mp4", "c.mp4")
    jobs, without = report_jobs(Sources(data, clips), list(TABLES), 2)
    assert [str(job) for job in jobs] == [
        *("self/800000", "self/800001", "cross/810001_800001", "clips/a", "clips/b"),
        *("clips_cross/b_a", "clips_cross/c_b", "long/a", "long/800000"),
    ]
    assert list(without) == ["photos", "photos_cross"] and "--photos" in without["photos"]
    found = {str(job): job for job in jobs}
    crossed = found["clips_cross/b_a"].case
    assert (crossed.portrait, crossed.driver, crossed.truth, crossed.most) == (clips / "b.mp4", clips / "a.mp4", None, MOST)
    assert found["cross/810001_800001"].case.driver == data / "800001.mp4"
    assert found["long/a"].case.frames == LONG == 1 + 10 * 15
    assert found["self/800000"].files() == {"driving": data / "800000.mp4", "truth": data / "800000.mp4"}


def test_what_cannot_be_a_table_is_told(tmp_path):
    data, clips, none = touch(tmp_path / "x", "a.mp4"), touch(tmp_path / "y", "a.mp4"), touch(tmp_path / "z")
    _, without = report_jobs(Sources(data, clips), list(TABLES))
    assert "no pair" in without["cross"] and "another person" in without["clips_cross"]
    with pytest.raises(InputError, match="holds no .mp4 clip"):
        report_jobs(Sources(clips=none), list(TABLES))
    with pytest.raises(InputError, match="points.npz is missing"):
        report_jobs(Sources(clips=clips, photos=none), ["photos_cross"])
    with pytest.raises(InputError, match="There is no case: photos: No --photos"):
        report_jobs(Sources(), ["photos"])
    _, without = report_jobs(Sources(clips=clips, photos=none), ["clips", "photos"])
    assert "--canonical" in without["photos"]
    jobs, _ = report_jobs(Sources(data, clips), ["long"], 2)
    assert [job.case.driver for job in jobs] == [clips / "a.mp4"]
    photos = touch(tmp_path / "p")
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (64, 64)).save(photos / name)
    np.savez(photos / "points.npz", names=["a.jpg", "a.png"], mesh=np.zeros((2, 468, 3), np.float32))
    with pytest.raises(InputError, match="share a name in the table photos_cross: a_a"):
        report_jobs(Sources(clips=clips, photos=photos), ["photos_cross"])


def test_a_portrait_is_a_picture_or_a_clips_first_frame(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    case = Case("a", tmp_path / "none.mp4", None, portrait=tmp_path / "a.png")
    assert torch.equal(case.portrait_picture(), torch.from_numpy(picture))
    clip = replace(case, portrait=CLIPS / "800000.mp4").portrait_picture()
    assert torch.equal(clip, read_clip(CLIPS / "800000.mp4")[0])
    assert torch.equal(read_clip(CLIPS / "800000.mp4", 3), read_clip(CLIPS / "800000.mp4")[:3])
    with pytest.raises(InputError, match="no portrait of its own"):
        replace(case, portrait=None).portrait_picture()


# Frames and rows


def test_equal_frames_are_one_picture():
    frames = torch.arange(3).float().view(3, 1, 1, 1).expand(3, 3, 4, 4)
    first, number = unique(frames[[2, 0, 2, 1, 0]])
    assert first.tolist() == [0, 1, 3] and number.tolist() == [0, 1, 0, 2, 1]


def test_rows_are_compared_as_files_would_hold_them():
    picture = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64) + 0.3 / 255
    compared = as_compared(picture)
    assert compared.shape == (1, 3, SIZE, SIZE) and compared.dtype == torch.uint8
    assert compared[0, :, 100, 100].tolist() == [0, 128, 255]
    ramp = (torch.arange(SIZE).float() / 255).expand(1, 3, SIZE, SIZE)
    assert torch.equal(as_compared(ramp)[0, 0, 0], torch.arange(SIZE).byte())
    frames = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    assert torch.equal((255 * framed(frames, torch.eye(3, dtype=torch.float64), SIZE)).round().byte(), frames.movedim(-1, 1))


def test_middle_of_a_facial_mask():
    middle = torch.tensor([[30.0, 40.0], [12.0, 7.0]], dtype=torch.float64)
    to_disc = torch.tensor([[0.1, 0.02], [-0.03, 0.2]], dtype=torch.float64)
    ellipses = torch.cat([to_disc.expand(2, 2, 2), -(to_disc @ middle[..., None])], 2)
    torch.testing.assert_close(centres(ellipses), middle)


def test_frames_that_a_method_has_not_repeat_the_one_before():
    pictures = torch.arange(3).float().view(3, 1, 1, 1).expand(3, 3, SIZE, SIZE) / 255
    row = on_all_frames(Result(pictures, (1, 2, 4), None), 6)
    assert row.present.tolist() == [False, True, True, False, True, False]
    assert row.pictures[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_judged_frames_among_all():
    judged, there = torch.tensor([False, True, False, True]), torch.tensor([True, True, True, False])
    assert on_frames(torch.tensor([1.0, 2.0]), judged, there) == [None, 1, None, None]
    assert some(24, 1) == [8, 16, 23] and some(3, 1) == [1, 2] and some(1, 0) == [0]


def test_a_still_mouth_cannot_be_followed():
    moving = torch.tensor([1.0, 3.0, 2.0, 5.0])
    assert opening_correlation(2 * moving + 1, moving) == pytest.approx(1)
    assert opening_correlation(torch.ones(4), moving) == 0
    assert opening_correlation(moving, torch.ones(4)) is None and opening_correlation(moving[:2], moving[:2]) is None


# Figures of a row, by constructed pictures


def prepared(exact: bool = True, valid: torch.Tensor | None = None, frames: int = 6, side: int = 64) -> Prepared:
    torch.manual_seed(0)
    pictures = 0.2 + 0.6 * torch.rand(frames, 3, side, side)
    five = torch.tensor([[24.0, 24], [40, 24], [32, 34], [26, 44], [38, 44]]).expand(frames, 5, 2)
    face = torch.zeros(frames, side, side, dtype=torch.bool)
    face[:, 16:48, 16:48] = True
    crop = torch.eye(3, dtype=torch.float64)
    view = View(pictures, five, crop)
    own = pictures if exact else None
    return Prepared(None, None, pictures[:1], own, view, five, crop, face, face[:1], valid, 12.5, exact)  # type: ignore[arg-type]


def seen_in(frames: int, keypoints: int = 5) -> Observed:
    points = torch.arange(frames).float().view(frames, 1, 1).expand(frames, keypoints, 2)  # 1 px a frame
    everywhere = torch.ones(frames, dtype=torch.bool)
    return Observed(points, torch.eye(3).expand(frames, 3, 3), everywhere, torch.zeros_like(everywhere))


# What the rows of test_figures_of_a_face_that_is_elsewhere have in every frame with a face.
FACES = {
    "identity_similarity": 1 / 1.25**0.5,
    "expression_l1": 0.25,
    "pose_l1": 0.5,
    "expression_change_l1": 0.5,
    "pose_change_l1": 1.0,
    "landmarks_px": 3.0,
    "landmarks_eyes_px": 3.0,
    "landmarks_lips_px": 3.0,
    "landmarks_brows_px": 3.0,
}


def figures_of(case: Prepared, pictures: torch.Tensor, present: torch.Tensor | None = None):
    frames = len(case)
    present = torch.ones(frames, dtype=torch.bool) if present is None else present
    still = torch.ones(pictures.shape[2:], dtype=torch.bool)
    compared = Compared(case, seen_in(frames), seen_in(1), still, [4])
    return row_figures(Row((255 * pictures).round().byte(), present), seen_in(frames), compared)


def test_figures_of_a_row_that_is_the_truth_but_darker():
    case = prepared()
    exact = (255 * case.target.pictures).round() / 255
    case = replace(case, target=replace(case.target, pictures=exact))
    frames, whole = figures_of(case, exact - 10 / 255)
    assert all(len(values) == 5 for values in frames.values())  # frame 0 is the portrait
    assert frames["psnr_db"] == pytest.approx([-20 * np.log10(10 / 255)] * 5, abs=1e-3)
    assert frames["outside_error_255"] == pytest.approx([10] * 5, abs=1e-3)
    assert frames["sharp"] == pytest.approx([1] * 5, abs=1e-3)
    assert frames["keypoint_error_px"] == [0] * 5 and frames["rotation_error_deg"] == pytest.approx([0] * 5, abs=0.05)
    assert frames["keypoint_step_px"] == pytest.approx([2**0.5] * 5) and frames["jitter_px"] == [None, 0, 0, 0, 0]
    assert whole["spectrum_worst_db"] == pytest.approx(0, abs=0.01) and whole["jitter_over_truth_px"] == 0
    assert set(frames) | set(whole) <= set(COLUMNS)


def test_frames_that_a_row_has_not_count_for_nothing():
    case = prepared()
    broken = case.target.pictures.clone()
    broken[3:] = 0
    frames, whole = figures_of(case, broken, torch.tensor([True, True, True, False, False, False]))
    for name, values in frames.items():
        assert values[2:] == [None] * 3 and (values[1] is not None), name
    assert frames["psnr_db"][:2] == pytest.approx([55, 55], abs=5)  # of rounding to 8 bits
    assert whole["spectrum_worst_db"] == pytest.approx(0, abs=0.05) and whole["seam"] is None  # no join is left
    gap = torch.tensor([True, True, False, True, True, True])
    frames, whole = figures_of(case, case.target.pictures, gap)
    assert "flicker_255" not in frames and "seam" not in whole and frames["psnr_db"][1] is None
    frames, _ = figures_of(case, case.target.pictures, torch.zeros(6, dtype=torch.bool))
    assert all(values == [None] * 5 for values in frames.values())


def test_unknown_pixels_count_for_nobody():
    valid = torch.ones(6, 64, 64, dtype=torch.bool)
    valid[:, 40:] = False
    case = prepared(valid=valid)
    shifted = (case.target.pictures - 0.1).clamp(0, 1)
    one, other = shifted.clone(), shifted.clone()
    other[:, :, 40:] = 0.9
    first, second = figures_of(case, one)[0], figures_of(case, other)[0]
    for metric in ("psnr_db", "ssim", "sharp", "outside_error_255"):
        assert first[metric] == pytest.approx(second[metric])
    assert first["psnr_db"] == pytest.approx([20] * 5, abs=0.05)
    assert torch.equal(filled(other, case, slice(None))[:, :, 40:], case.target.pictures[:, :, 40:])


def test_without_truth_no_pixel_is_compared():
    frames, whole = figures_of(prepared(exact=False, side=SIZE), torch.rand(6, 3, SIZE, SIZE))
    assert not {"psnr_db", "ssim", "outside_error_255", "keypoint_error_px"} & set(frames)
    assert all(len(values) == 6 for values in frames.values()) and "spectrum_worst_db" not in whole
    assert {"rotation_error_deg", "sharp", "flicker_255"} <= set(frames)


class FaceInLight:
    """A detector that sees a face in light pictures alone, and counts them."""

    def __init__(self) -> None:
        self.looks = 0

    def detect(self, picture):
        from realportrait_core.face.detect import Face

        self.looks += 1
        return [Face(torch.zeros(4), torch.full((5, 2), 9.0), 1.0)] if picture.mean() > 0.5 else []


def test_every_picture_is_looked_at_once_and_unjudged_ones_never():
    from realportrait_core.eval.judges.recognition import Recognition

    levels = torch.tensor([0.9, 0.8, 0.9, 0.1, 0.8, 0.7])
    pictures = levels.view(6, 1, 1, 1).expand(6, 3, 32, 32)
    judged = torch.tensor([True, True, True, True, True, False])
    detector = FaceInLight()
    recognition = Recognition("face-api", lambda pictures, five: torch.stack([pictures.mean((1, 2, 3)), five[:, 0, 0]], 1))
    motion = MotionExtractor(Vid2VidConfig(**toy_sizes.VID2VID)).eval()
    with torch.inference_mode():
        seen = observe(
            motion, detector, None, recognition, pictures, torch.zeros(6, 5, 2), torch.eye(3, dtype=torch.float64), judged
        )
    assert detector.looks == 3  # of 0.9, 0.8 and 0.1
    assert seen.found.tolist() == [True, True, True, False, True, False]
    torch.testing.assert_close(seen.embeddings[seen.found], torch.tensor([[0.9, 9.0], [0.8, 9], [0.9, 9], [0.8, 9]]))
    assert seen.keypoints.shape == (6, 5, 2) and torch.equal(seen.keypoints[0], seen.keypoints[2])


def test_figures_of_a_face_that_is_elsewhere():
    """By judges of faces: landmarks 3 px beside the target's, angles and coefficients that are off."""
    case, frames = prepared(), 6
    found, time = torch.tensor([True] * 5 + [False]), torch.arange(6.0)

    def seen(shift: float, gap: float, level: float, count: int = frames) -> Observed:
        landmarks = torch.zeros(count, 478, 3) + torch.tensor([shift, 0, 0])
        landmarks[:, list(LOWER_INNER), 1] += gap * (1 + time[:count, None] ** 2)
        parameters = FaceParameters(torch.full((count, 51), level), torch.full((count, 3), 2 * level), found[:count])
        embeddings = torch.tensor([[1.0, level]]).expand(count, 2)
        keypoints = torch.zeros(count, 26, 2) + torch.tensor([0, shift])
        keypoints[:, LIPS[26][1], 1] += gap * time[:count] ** 2
        everywhere = torch.ones(count, dtype=torch.bool)
        turned = torch.eye(3).expand(count, 3, 3)
        return Observed(keypoints, turned, everywhere, found[:count], landmarks, parameters, embeddings)

    target, portrait = seen(0, 1, 0.25), seen(0, 1, 0.0, 1)
    compared = Compared(case, target, portrait, torch.ones(64, 64, dtype=torch.bool), [])
    row = Row((255 * case.target.pictures).round().byte(), torch.ones(frames, dtype=torch.bool))
    by_frame, whole = row_figures(row, seen(3, 1, 0.5), compared)
    there = {name: [*[value] * 4, None] for name, value in FACES.items()}
    assert {name: by_frame[name] for name in there} == {name: pytest.approx(values) for name, values in there.items()}
    assert by_frame["face_found"] == [1, 1, 1, 1, 0]
    assert by_frame["keypoint_error_px"] == by_frame["eyes_mouth_error_px"] == pytest.approx([3] * 5)
    assert whole["mouth_correlation"] == pytest.approx(1) and whole["keypoint_mouth_correlation"] == pytest.approx(1)
    assert whole["jitter_over_truth_px"] == 0
    _, double = row_figures(row, seen(0, 2, 0.5), compared)
    steps = [2 * 1 / 26**0.5] * 3  # second differences of gap t^2 at one of 26 keypoints: 2 gap
    assert double["jitter_over_truth_px"] == pytest.approx((3 * steps[0] ** 2) ** 0.5)
    assert double["mouth_correlation"] == pytest.approx(1)


# SMIRK's parameters


def test_smirks_distances_join_a_record(tmp_path):
    for name, level, frames in (("driving", 0.0, 4), ("A", 0.5, 4), ("B", 0.25, 3)):
        (tmp_path / name).mkdir()
        expression, pose = np.full((frames, 50), level), np.full((frames, 3), 2 * level)
        expression[1] = np.nan if name == "A" else level
        np.savez(tmp_path / name / "c.npz", expression_params=expression, pose_params=pose)
    record = CaseRecord("self", "c", 3, {row: {"psnr_db": [1, 1, 1]} for row in ("A", "B", "C")})
    found = with_smirk(record, SmirkFolder(tmp_path))
    assert found.frames["A"]["smirk_expression_l1"] == [None, 0.5, 0.5] and found.frames["A"]["smirk_pose_l1"][1:] == pytest.approx(
        [1, 1]
    )
    assert found.frames["B"]["smirk_expression_l1"] == [0.25, 0.25, None] and "3 frames" in found.notes[0]
    assert found.frames["C"] == {"psnr_db": [1, 1, 1]}
    assert with_smirk(replace(record, table="long"), SmirkFolder(tmp_path)).notes == ()
    assert "missing" in with_smirk(replace(record, name="d"), SmirkFolder(tmp_path)).notes[0]


# Runs, with tiny networks


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[str]:
    """Options that name files of tiny networks, and the detector's."""
    pytest.importorskip("cv2")
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    conditioner = ConditionerConfig(motion_latent=6, reference_motion=True, draft_widths=(4, 4, 4))
    save_vid2vid(folder / "vid2vid.safetensors", FaceVid2Vid(Vid2VidConfig(**toy_sizes.VID2VID)))
    save_dit(folder / "dit.safetensors", RealPortraitDiT(DiTConfig(**toy_sizes.DIT | dict(conditioner=conditioner))).initialize())
    save_vae(folder / "vae.safetensors", TinyVAE((4, 4, 4, 4)))
    files = {name: str(folder / f"{name}.safetensors") for name in ("vid2vid", "dit", "vae")}
    return [
        "--steps",
        "1",
        *(item for pair in files.items() for item in (f"--{pair[0]}", pair[1])),
        "--detector",
        str(yunet.onnx()),
    ]


@pytest.fixture
def clips(tmp_path) -> Path:
    """Two people, four frames each."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("800000", "810000"):
        videos.write(folder / f"{name}.mp4", list(read_clip(CLIPS / f"{name}.mp4")[:8:2].numpy()))
    return folder


def report(out: Path, *options: object) -> int:
    return command.main(["report", "--out", str(out), *map(str, options)])


def records(out: Path) -> dict[str, CaseRecord]:
    found = {path.relative_to(out / "cases").with_suffix("").as_posix(): read_record(path) for path in out.glob("cases/*/*.json")}
    assert None not in found.values()
    return found  # type: ignore[return-value]


def times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("cases/*/*.json")}


def failures(out: Path) -> list[dict[str, str]]:
    with (out / FAILED).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_and_the_next_one(tiny, clips, tmp_path, monkeypatch):
    """Records with every row, files beside them, a report; nothing is measured twice, and what has changed is measured again."""
    out, method = tmp_path / "out", tmp_path / "other"
    (method / "self").mkdir(parents=True)
    videos.write(method / "self" / "800000.mp4", list(read_clip(clips / "800000.mp4")[:3].numpy()), crf=1)
    options = ["--data", clips, "--clips", clips, "--tables", "self", "cross", "clips_cross", "--limit", 1, *tiny]
    options += ["--method", f"Other={method}"]
    assert report(out, *options) == 0
    found = records(out)
    assert sorted(found) == ["clips_cross/810000_800000", "cross/810000_800000", "self/800000"]
    own, crossed, free = (found[name] for name in ("self/800000", "cross/810000_800000", "clips_cross/810000_800000"))
    assert list(own.frames) == [TRUTH, *ROWS, "Other"] and list(crossed.frames) == [TRUTH, *ROWS]
    assert list(free.frames) == [DRIVING, *(row for row in ROWS if row != "VAE round trip")]
    assert own.scored == crossed.scored == 3 and free.scored == 4
    assert "Other" in crossed.left_out and "Other has neither" in crossed.left_out["Other"]
    # The other method's video is the truth itself, less one frame.
    other = own.frames["Other"]["psnr_db"]
    assert other[2] is None and min(other[:2]) > 38 and len(own.notes) == 1 and "3" in own.notes[0]
    assert own.frames[STATIC]["psnr_db"][0] < 38 and own.frames[STATIC]["step_255"] == [0, 0, 0]
    assert "psnr_db" not in free.frames[REALPORTRAIT] and "rotation_error_deg" in free.frames[REALPORTRAIT]
    named = {name for record in found.values() for part in (record.frames, record.whole) for row in part.values() for name in row}
    assert named <= set(COLUMNS)
    assert read_layout(out / "cases" / "self" / "800000.mp4").rows == ("portrait", TRUTH, *ROWS, "Other")
    assert read_layout(out / "cases" / "cross" / "810000_800000.mp4").rows[:3] == ("portrait", DRIVING, TRUTH)
    assert (out / "cases" / "self" / "800000.jpg").is_file() and not (out / FAILED).exists()
    summary = json.loads((out / "report.json").read_text())
    assert set(summary["tables"]) == {"self", "cross", "clips_cross"} and "nan" not in (out / "report.md").read_text().lower()
    assert {"lpips", "fid", "st_lpips", "identity_similarity"} <= set(summary["about"]["missing"])

    # Again: the networks are not even loaded.
    first = times(out)
    with monkeypatch.context() as never:
        never.setattr(spread, "make_measurer", None)
        assert report(out, *options) == 0 and times(out) == first
    # The method's new video changes the case that it belongs to alone.
    videos.write(method / "self" / "800000.mp4", list(read_clip(clips / "800000.mp4").numpy()), crf=1)
    os.utime(method / "self" / "800000.mp4", (1, 1))
    assert report(out, *options) == 0
    changed = {name for name, time in times(out).items() if time != first[name]}
    assert changed == {"800000.json"} and None not in records(out)["self/800000"].frames["Other"]["psnr_db"]


def test_cases_that_fail_are_listed_and_the_others_are_measured(tiny, clips, tmp_path, caplog):
    black = [np.zeros((64, 64, 3), np.uint8)] * 3
    videos.write(clips / "000000.mp4", black)
    videos.write(clips / "000001.mp4", list(read_clip(clips / "800000.mp4")[:1].numpy()))
    (clips / "000002.mp4").write_bytes(b"no video")
    videos.write(clips / "810000.mp4", list(read_clip(clips / "800000.mp4")[:3].numpy()))  # of the pair, another length
    out = tmp_path / "out"
    options = ["--data", clips, "--tables", "self", "cross", "--limit", 5, *tiny]
    assert report(out, *options) == 1
    said = {f"{line['table']}/{line['case']}": line["error"] for line in failures(out)}
    assert list(said) == ["self/000000", "self/000001", "self/000002", "cross/810000_800000"]
    for name, part in zip(said, ("No face", "has 1 frames", "is not a video", "has 4 frames and the truth 3")):
        assert part in said[name], said[name]
    assert sorted(records(out)) == ["self/800000", "self/810000"]
    assert json.loads((out / "report.json").read_text())["about"]["failed"] == said
    assert "Traceback" not in caplog.text

    # Mended, they are measured, and only they.
    before = times(out)
    for name in said:
        if name.startswith("self"):
            (clips / f"{name.removeprefix('self/')}.mp4").unlink()
    videos.write(clips / "810000.mp4", list(read_clip(CLIPS / "810000.mp4")[:8:2].numpy()))
    assert report(out, *options) == 0 and not (out / FAILED).exists()
    assert times(out)["800000.json"] == before["800000.json"] and "cross/810000_800000" in records(out)


def test_gaps_and_single_frames(tiny, tmp_path):
    """A face that is missing in some driving frames is told and the case measured; one driving frame is enough without truth."""
    frames = read_clip(CLIPS / "800000.mp4")[:4].numpy()
    folder, out = tmp_path / "clips", tmp_path / "out"
    folder.mkdir()
    videos.write(folder / "a.mp4", [frames[0], np.zeros_like(frames[1]), frames[2]])
    videos.write(folder / "b.mp4", [frames[3]])
    assert report(out, "--clips", folder, "--tables", "clips", "clips_cross", *tiny) == 1
    assert [line["case"] for line in failures(out)] == ["b"]
    found = records(out)
    assert found["clips/a"].scored == 2 and "Missing in frame 1" in found["clips/a"].notes[0]
    one = found["clips_cross/a_b"]
    assert one.scored == 1 and "seam" not in one.whole[REALPORTRAIT] and None not in one.frames[REALPORTRAIT]["sharp"]


def test_stopped_and_continued(tiny, clips, tmp_path, monkeypatch):
    """Ctrl-C at the second case keeps the first one, and the next run does the rest."""
    make = spread.make_measurer

    def stops(*arguments):
        work = make(*arguments)

        def stopped(job):
            if job.name == "810000":
                raise KeyboardInterrupt
            return work(job)

        return stopped

    out, options = tmp_path / "out", ["--data", clips, "--tables", "self", *tiny]
    with monkeypatch.context() as now:
        now.setattr(spread, "make_measurer", stops)
        assert report(out, *options) == 130
    assert list(records(out)) == ["self/800000"]
    before = times(out)
    assert report(out, *options) == 0
    assert sorted(records(out)) == ["self/800000", "self/810000"] and times(out)["800000.json"] == before["800000.json"]


def test_a_fault_of_our_own_is_listed_too(monkeypatch, tmp_path, caplog):
    def make(setup, marks, out, device, threads):
        def work(job):
            raise ZeroDivisionError("a fault")

        return work

    monkeypatch.setattr(spread, "make_measurer", make)
    monkeypatch.setattr(Setup, "marks", lambda self: {})
    job = Job("self", Case("800000", CLIPS / "800000.mp4", CLIPS / "800000.mp4"))
    results = run_cases([job], tmp_path, Setup(Weights(*[tmp_path] * 4)))
    assert results.failed == [(job, "An unexpected error: ZeroDivisionError: a fault")] and results.records == []
    assert "Traceback" in caplog.text and failures(tmp_path)[0]["case"] == "800000"


def test_the_fingerprint_is_of_everything(tmp_path):
    clip, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    for path in (clip, other):
        path.write_bytes(b"abc")
        os.utime(path, (5, 5))
    setup = Setup(Weights(*[tmp_path] * 4))
    job = Job("self", Case("a", clip, clip, most=MOST))
    marks = {"dit": "1"}
    of = setup.fingerprint(job, marks)
    assert of == setup.fingerprint(job, dict(marks)) and len(of) == 64
    others = {
        setup.fingerprint(job, {"dit": "2"}),
        setup.fingerprint(replace(job, table="long"), marks),
        setup.fingerprint(replace(job, case=replace(job.case, frames=9)), marks),
        setup.fingerprint(replace(job, case=replace(job.case, driver=other)), marks),
        *(replace(setup, **change).fingerprint(job, marks) for change in ({"steps": 3}, {"guidance": 2.0}, {"every": 1})),
        replace(setup, methods={"X": tmp_path}).fingerprint(job, marks),
    }
    clip.write_bytes(b"abcd")
    others.add(setup.fingerprint(job, marks))
    assert len(others) == 9 and of not in others
    clip.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        setup.fingerprint(job, marks)


def test_wrong_options_end_as_one_sentence(tiny, clips, tmp_path, caplog):
    out = tmp_path / "out"
    assert report(out, "--data", clips, "--limit", 0, *tiny) == 1
    assert report(out, "--data", touch(tmp_path / "none"), *tiny) == 1
    assert report(out, *tiny) == 1
    assert report(out, "--data", clips, *tiny, "--method", "RealPortrait=.") == 1
    assert report(out, "--data", clips, *tiny, "--dit", tmp_path / "none.safetensors") == 1
    assert [record.levelname for record in caplog.records].count("ERROR") == 5 and not out.exists()
    assert issubclass(InputError, RealPortraitError)


def test_other_networks_are_rows(tiny, clips, tmp_path, caplog):
    """The same weights under another name have the same figures, an ablation of 1-D motion has others."""
    dit = Path(tiny[tiny.index("--dit") + 1])
    plain = {name: value for name, value in toy_sizes.DIT.items() if name != "control_depth"}
    cfg = AblationConfig(**plain, control_depth=0, keypoints=toy_sizes.VID2VID["num_kp"])
    torch.manual_seed(0)
    ablation = network_of(cfg).initialize()
    torch.nn.init.normal_(ablation.final_layer.linear.weight)
    save_network(tmp_path / "keypoints.safetensors", ablation)
    out, others = tmp_path / "out", ("--network", f"same={dit}", "--network", f"1-D={tmp_path / 'keypoints.safetensors'}")
    assert report(out, "--data", clips, "--tables", "self", "--limit", 1, *tiny, *others) == 0
    (record,) = records(out).values()
    assert record.frames["same"] == record.frames[REALPORTRAIT] and record.whole["same"] == record.whole[REALPORTRAIT]
    assert record.frames["1-D"].keys() == record.frames["same"].keys() and record.frames["1-D"] != record.frames["same"]
    assert report(out, "--data", clips, *tiny, "--network", "RealPortrait=x.safetensors") == 1
    assert "there is a row RealPortrait already" in caplog.text


@pytest.mark.slow  # a Ray of its own
def test_actors_measure_the_same(tiny, clips, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # no lower priority than what else runs on this machine
    options = ["--data", clips, "--tables", "self", *tiny]
    assert report(tmp_path / "here", *options) == 0
    assert report(tmp_path / "there", *options, "--ray", "local", "--workers", 1, "--cpus-per-worker", 1) == 0
    here, there = (records(tmp_path / name) for name in ("here", "there"))
    assert list(here) == list(there)
    for name in here:
        for row in here[name].frames:
            for metric, values in here[name].frames[row].items():
                found = there[name].frames[row][metric]
                for a, b in zip(found, values, strict=True):
                    assert a == (None if b is None else pytest.approx(b, rel=1e-3, abs=1e-3)), (name, row, metric)
