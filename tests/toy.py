"""Toy configurations, training samples and stages that train in seconds, shared by the tests of training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toy_sizes

from realportrait_core.config import ConditionerConfig, Config, DiTConfig, Vid2VidConfig
from realportrait_core.train.batch import read_index
from realportrait_core.train.budget import Budget
from realportrait_core.train.data.prepare import weights_fingerprint
from realportrait_core.train.data.sample import Sample, save_sample
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.run import make_objective
from realportrait_core.train.stage import train_stage
from realportrait_core.train.stages import Shape, Stage
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.keypoints import Pose, rotation_matrix

TOY = Config(
    vid2vid=Vid2VidConfig(**toy_sizes.VID2VID | dict(compress=1)),
    dit=DiTConfig(**toy_sizes.DIT | dict(clip_frames=4, conditioner=ConditionerConfig(motion_latent=6, reference_motion=True))),
    image_size=64,
)

# The paper's network: its motion mapper, epsilon and the variance.
PAPER = replace(TOY.dit, conditioner=None, learned_sigma=True, qk_norm_legacy=True, prediction="epsilon")


def conditioned(**changes) -> DiTConfig:
    """TOY's network with another conditioner."""
    return replace(TOY.dit, conditioner=replace(TOY.dit.conditioner, **changes))


FRAMES = Stage((Shape(2, clips=2),), steps=6, lr=3e-3, warmup=2, average=0.9)
CLIPS = Stage((Shape(2, frames=4), Shape(4, frames=2, stride=3)), steps=6, lr=3e-3, warmup=2, average=0.9)
# The stages of a preset.
STAGES = {
    "frames": replace(FRAMES, muon=True),
    "clips": CLIPS,
    "maps": replace(FRAMES, latent_regression=1.0, mapper_only=True),
    "distil": replace(CLIPS, distil=4),
}


def poses(count: int) -> Pose:
    pitch, yaw, roll = 10 * torch.randn(3, count)
    return Pose(
        torch.randn(count, 5, 3) / 4,
        rotation_matrix(pitch, yaw, roll),
        pitch,
        yaw,
        roll,
        torch.randn(count, 5, 3) / 50,
        torch.full((count, 1), 1.1),
        torch.randn(count, 3) / 50,
    )


def sample(kind: str, frames: int, portraits: list[int], seed: int) -> Sample:
    torch.manual_seed(seed)
    points = torch.tensor([[22.0, 26], [42, 26], [32, 34], [25, 42], [39, 42]]) + torch.randn(frames, 5, 2)
    crop = torch.diag(torch.tensor([8.0, 8.0, 1.0], dtype=torch.float64))
    latents = torch.tensor([1.0, -1.0, 0.5, -0.5])[:, None, None] + 0.3 * torch.randn(frames, 4, 8, 8)
    return Sample(
        kind,
        64,
        latents.half(),
        torch.tensor(portraits),
        torch.randn(len(portraits), 4, 2, 8, 8).half(),
        poses(len(portraits)),
        crop.expand(len(portraits), 3, 3),
        poses(frames),
        points,
        crop,
    )


@pytest.fixture(scope="module")
def vid2vid() -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(TOY.vid2vid).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, vid2vid) -> Path:
    """Three videos and a picture, made with `vid2vid`."""
    made, note = tmp_path_factory.mktemp("samples"), {"vid2vid": weights_fingerprint(vid2vid)}
    for i in range(3):
        save_sample(made / "videos" / f"clip {i}.safetensors", sample("video", 9 + i, [0, 5], i), note)
    save_sample(made / "pictures" / "ü.safetensors", sample("image", 2, [0], 7), note)
    return made


@pytest.fixture(scope="module")
def index(folder):
    return read_index(folder, 64)


# Trainings


def run(index, vid2vid, checkpoint: Path, stage: Stage = CLIPS, steps: int = 6, **options) -> dict[str, torch.Tensor]:
    """TOY's network from scratch, trained by the paper's objective: the averaged weights."""
    torch.manual_seed(0)
    objective = make_objective(from_scratch(TOY.dit), stage, torch.float32)
    return train_stage(objective, stage, index, vid2vid.warping, checkpoint, Budget(steps), **options).state_dict()
