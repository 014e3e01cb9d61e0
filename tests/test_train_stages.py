"""The stages: what a step draws, what the paper's presets train, and the way from a folder of videos to weights."""

import logging
from dataclasses import replace

import cv2
import pytest
import torch
import yunet
from toy import CLIPS, FRAMES, PAPER, TOY, folder, index, vid2vid  # noqa: F401, fixtures

from realportrait_core.animation.mapping import motion_maps
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.config import ABLATIONS, MINI, PRESETS
from realportrait_core.diffusion.objective import diffusion_loss, noise_clip
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.checkpoint import load_dit
from realportrait_core.errors import InputError
from realportrait_core.train import __main__ as train_command
from realportrait_core.train import loop
from realportrait_core.train.batch import draw, load, maps_of
from realportrait_core.train.data import __main__ as prepare_command
from realportrait_core.train.data.sample import load_sample
from realportrait_core.train.denoiser import conditional_frames, conditions, denoiser
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.loading import batches
from realportrait_core.train.run import StageRun, make_objective, run_stage
from realportrait_core.train.stages import STAGES, Shape
from realportrait_core.vae import TinyVAE, save_vae
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import save_vid2vid

# The presets


def test_every_preset_has_the_stages_of_the_command():
    assert STAGES.keys() == PRESETS.keys()
    for preset, stages in STAGES.items():
        assert stages.keys() == ({"frames", "clips"} if preset in ABLATIONS else train_command.HELP.keys())


def test_a_stage_that_an_ablation_lacks_is_refused(tmp_path):
    run = StageRun(tmp_path, tmp_path / "v.safetensors", tmp_path / "o.safetensors", preset="keypoints")
    with pytest.raises(InputError, match="keypoints has the stages frames, clips, and no maps"):
        run_stage(run, "maps")


@pytest.mark.parametrize("name", ["frames", "clips"])
def test_the_papers_stages_train_by_the_papers_loss(index, vid2vid, name):
    """Nothing but the diffusion loss (IDDPM's, variance included), averaged without weights, and AdamW."""
    torch.manual_seed(0)
    stage = replace(STAGES["paper"][name], shapes=(FRAMES if name == "frames" else CLIPS).shapes)
    objective = make_objective(from_scratch(PAPER), stage, torch.float32)
    torch.nn.init.normal_(objective.dit.final_layer.linear.weight, std=0.1)
    batch = load(index, draw(index, stage, 0, 0, 1000))
    maps, own = maps_of(vid2vid.warping, batch)
    schedule, conditional = linear_schedule(), conditional_frames(batch)
    z_t = noise_clip(schedule, batch.z, batch.t, batch.noise, conditional)
    with torch.no_grad():
        out = denoiser(objective.dit, batch, *conditions(objective.dit, batch, maps, own))(z_t, batch.t)
        plain = diffusion_loss(schedule, out, batch.z, z_t, batch.t, batch.noise, "epsilon", conditional)
        torch.testing.assert_close(objective(batch, maps, own), plain.mean())
    assert out.shape[2] == 8 and not stage.muon and not batch.unmoved.any()


# What a step draws


def test_single_frames_come_from_everything_and_never_copy_a_picture(index):
    stage = replace(FRAMES, shapes=(Shape(8, clips=3),))
    seen = set()
    for step in range(40):
        for item in draw(index, stage, 0, step, 1000):
            assert item.frames.shape == (3, 1) and not item.conditional.any()
            seen.add(item.sample)
            if index.video[item.sample]:
                assert len(set(item.frames.flatten().tolist())) == 3
            else:
                assert item.frames.eq(1).all() and item.portrait == 0
    assert seen == set(range(4))


def test_clips_are_consecutive_and_from_videos(index):
    starts = set()
    for step in range(60):
        shape = CLIPS.shapes[step % 2]
        items = draw(index, CLIPS, 1, step, 1000)
        assert len(items) == shape.portraits
        for item in items:
            assert index.video[item.sample] and item.frames.shape == (1, shape.frames)
            assert item.frames.diff(dim=1).eq(shape.stride).all()
            assert 0 <= item.frames.min() and item.frames.max() < index.frames[item.sample]
            starts.add(int(item.frames[0, 0]))
    assert len(starts) > 5


def test_masks_of_a_stage_hide_heads_and_tails_only(index):
    stage = replace(CLIPS, shapes=(Shape(8, frames=4),))
    kinds = {(): 0, (0,): 0, (3,): 0, (0, 3): 0}
    for step in range(150):
        for item in draw(index, stage, 2, step, 1000):
            kinds[tuple(torch.nonzero(item.conditional[0, 0])[:, 0].tolist())] += 1
    share = {kind: count / sum(kinds.values()) for kind, count in kinds.items()}
    for kind, expected in {(): 0.5, (0,): 0.2, (3,): 0.1, (0, 3): 0.2}.items():
        assert abs(share[kind] - expected) < 0.05


def test_times_of_a_step_are_stratified(index):
    for shape in (Shape(5, clips=2), Shape(1, clips=2, noises=5)):
        times = torch.cat([item.t.flatten() for item in draw(index, replace(FRAMES, shapes=(shape,)), 0, 3, 1000)])
        assert sorted((times // 100).tolist()) == list(range(10))


def test_processes_draw_together_what_one_would(index):
    whole = next(batches(index, CLIPS, 0, 1, 1000, rank=0, size=1))
    halves = [next(batches(index, CLIPS, 0, 1, 1000, rank=rank, size=2)) for rank in (0, 1)]
    for name in ("z_r", "z", "noise", "t", "face"):
        joined = torch.stack([getattr(half, name) for half in halves], 1).flatten(0, 1)
        assert torch.equal(joined, getattr(whole, name))


def test_steps_differ_and_seeds_differ(index):
    def noise(seed, step):
        return load(index, draw(index, FRAMES, seed, step, 1000)).noise

    assert torch.equal(noise(0, 4), noise(0, 4))
    assert not torch.equal(noise(0, 4), noise(0, 5)) and not torch.equal(noise(0, 4), noise(1, 4))


def test_maps_of_a_batch_are_those_that_users_get(index, vid2vid):
    """mapping.motion_maps on the same keypoints, one portrait at a time."""
    items = draw(index, CLIPS, 0, 0, 1000)
    maps, own = maps_of(vid2vid.warping, load(index, items))
    driven = iter(range(len(maps)))
    for i, item in enumerate(items):
        kept = load_sample(index.paths[item.sample])
        with torch.inference_mode():
            motion = motion_maps(vid2vid, drive_keypoints(kept.keypoints(item.portrait, item.frames[0]), neutral=0), 64, "whole")
        for frame in range(item.frames.shape[1]):
            here = next(driven)
            torch.testing.assert_close(maps.f[here].half(), motion.maps.f[1 + frame], atol=2e-3, rtol=2e-3)
            torch.testing.assert_close(maps.face[here].double(), motion.maps.face[1 + frame], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(own.f[i].half(), motion.portrait_maps.f[0], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(own.frame_to_crop[i].double(), motion.portrait_maps.frame_to_crop[0], atol=1e-4, rtol=1e-4)


# From a folder of videos to weights


@pytest.mark.slow  # MINI's size
def test_a_folder_of_videos_becomes_weights(tmp_path, caplog, monkeypatch):
    """The README's way, each command once, with MINI's networks and few frames a step."""
    pytest.importorskip("av")
    for name, shape in {"frames": Shape(1), "clips": Shape(1, frames=4, stride=4)}.items():
        monkeypatch.setitem(STAGES["mini"], name, replace(STAGES["mini"][name], shapes=(shape,)))
    bundled = yunet.ROOT / "realportrait_core" / "weights"
    vid2vid, vae = (
        str(bundled / name)
        for name in ("realportrait/realportrait_mini_vid2vid.safetensors", "vae/realportrait_mini_vae.safetensors")
    )
    videos = tmp_path / "my videos"
    videos.mkdir()
    (videos / "800000.mp4").symlink_to(yunet.ROOT / "tests" / "data" / "800000.mp4")
    (videos / "portrait.png").symlink_to(yunet.ROOT / "assets" / "portrait.png")
    samples = str(tmp_path / "samples")
    assert (
        prepare_command.main(
            [str(videos), "--out", samples, "--weights", vid2vid, "--vae", vae, "--preset", "mini", "--detector", str(yunet.onnx())]
        )
        == 0
    )
    caplog.set_level(logging.INFO)
    common = ["--samples", samples, "--vid2vid", vid2vid, "--preset", "mini", "--steps", "2"]
    stage_1, mine = str(tmp_path / "stage1.safetensors"), str(tmp_path / "mine.safetensors")
    assert train_command.main(["frames", *common, "--out", stage_1, "--board", str(tmp_path / "board"), "--vae", vae]) == 0
    assert "2 samples (1 videos, 1 pictures)" in caplog.text and "s a step, 2 steps" in caplog.text
    assert train_command.main(["clips", *common, "--out", mine, "--init", stage_1]) == 0
    dit = load_dit(mine)
    assert dit.cfg == MINI.dit and any(
        not torch.equal(value, load_dit(stage_1).state_dict()[name]) for name, value in dit.state_dict().items()
    )

    assert train_command.main(["frames", *common, "--out", stage_1]) == 1
    assert "1 of the samples are photographs, of which every step encodes a new crop" in caplog.text
    shuffled = FaceVid2Vid(MINI.vid2vid)
    save_vid2vid(tmp_path / "other.safetensors", shuffled)
    common[3] = str(tmp_path / "other.safetensors")
    assert train_command.main(["frames", *common, "--out", stage_1]) == 1
    assert "were made with another Face Vid2vid" in caplog.text
    assert train_command.main(["clips", *common, "--init", vid2vid, "--out", mine]) == 1


def test_a_sample_grid_is_drawn_at_every_checkpoint(folder, index, vid2vid, tmp_path, monkeypatch):
    """Two frames of every sample: portrait, truth and result beside each other."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setitem(STAGES, "toy", {"clips": replace(CLIPS, shapes=(Shape(1, frames=2),))})
    files = {name: tmp_path / f"{name}.safetensors" for name in ("vid2vid", "vae", "out")}
    save_vid2vid(files["vid2vid"], vid2vid, torch.float32)
    torch.manual_seed(0)
    save_vae(files["vae"], TinyVAE((4, 4, 4, 4)))
    board = tmp_path / "board"
    given = StageRun(folder, files["vid2vid"], files["out"], "toy", steps=2, device="cpu", board=board, vae=files["vae"])
    run_stage(given, "clips", TOY)
    pictures = [cv2.imread(str(path)) for path in sorted(board.glob("samples_*.png"))]
    assert [path.name for path in sorted(board.glob("*.png"))] == ["samples_000001.png", "samples_000002.png"]
    assert all(picture.shape == (3 * 64, (1 + 2 + 2) * 64, 3) for picture in pictures)
    before, after = (torch.from_numpy(picture).split([3 * 64, 2 * 64], 1) for picture in pictures)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
