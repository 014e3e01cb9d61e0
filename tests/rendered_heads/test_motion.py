"""Head motion as a function of time, and what it does to a mesh."""

from dataclasses import replace

import torch

from rendered_heads import sample_identity, sample_motion
from rendered_heads.figure import build_figure, posed_vertices
from rendered_heads.motion import ARKIT, rotations


def test_a_motion_is_a_function_of_time():
    fast, slow = sample_motion(5, 48, 25.0), sample_motion(5, 24, 12.5)
    for name in ("expression", "pose", "gaze", "translation"):
        torch.testing.assert_close(getattr(fast, name)[::2], getattr(slow, name), atol=1e-6, rtol=0)  # two lengths of sums
    assert slow.expression.min() >= 0 and slow.expression.max() <= 1
    assert torch.rad2deg(slow.pose.abs()).amax() < 50


def test_motions_open_mouths_and_close_eyes():
    motions = [sample_motion(seed, 24, 12.5).expression for seed in range(20)]
    peaks = torch.stack([expression.amax(0) for expression in motions])
    for name in ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "browInnerUp"):
        assert (peaks[:, ARKIT.index(name)] > 0.6).float().mean() > 0.3, name


def test_expressions_add_up(rig):
    """A half-strong unit moves the skin half as far; two units move it by the sum of theirs."""
    figure = build_figure(rig, sample_identity(rig, 1), 0.5)
    at_rest = replace(sample_motion(0, 4, 1.0), pose=torch.zeros(4, 3), gaze=torch.zeros(4, 2), translation=torch.zeros(4, 3))
    weights = torch.zeros(4, 52)
    weights[1, 24], weights[2, 43], weights[3, 24], weights[3, 43] = 1.0, 1.0, 0.5, 1.0
    rest, first, second, both = posed_vertices(figure, replace(at_rest, expression=weights))
    torch.testing.assert_close(both - rest, 0.5 * (first - rest) + (second - rest), atol=1e-5, rtol=0)
    assert (first - rest).norm(dim=1).max() > 0.2  # dm: the jaw opens


def test_the_head_turns_as_its_pose_says(rig):
    figure = build_figure(rig, sample_identity(rig, 1), 0.5)
    motion = sample_motion(9, 3, 2.0)
    motion = replace(motion, expression=torch.zeros(3, 52), gaze=torch.zeros(3, 2), translation=torch.zeros(3, 3))
    rigid = torch.nonzero(figure.head_share == 1)[:, 0]
    rigid = rigid[~torch.isin(rigid, figure.eyes)]
    turned = (figure.rest[rigid] - figure.pivot) @ rotations(motion.pose).transpose(1, 2) + figure.pivot
    torch.testing.assert_close(posed_vertices(figure, motion)[:, rigid], turned, atol=1e-4, rtol=0)
