"""The sliders of an expression: which way the keypoints go, on poses that are made up and on the truth of a rendered clip."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from realportrait_core.errors import InputError
from realportrait_core.train.mini.head_truth import load_truth, truth_in_crops
from realportrait_core.vid2vid.expressions import SLIDERS, Expression, edited_keypoints, expression_change
from realportrait_core.vid2vid.keypoints import Pose, angle_between, rotation_matrix, transform
from realportrait_core.vid2vid.regions import EYES, LIPS, PAIRS, partners

DATA = Path(__file__).resolve().parent / "data"
NAMES = ("smile", "mouth", "eyes", "gaze_x", "gaze_y")
JAW_OPEN = 24  # among the 52 coefficients
MIRROR = torch.tensor([-1.0, 1.0, 1.0])


def portrait(k: int, seed: int = 0, turned: bool = True) -> Pose:
    g = torch.Generator().manual_seed(seed)
    face = 0.3 * torch.randn(1, k, 3, generator=g)
    for left, right in PAIRS.get(k, ()):
        face[:, right] = face[:, left] * MIRROR
    angles = 12 * torch.randn(3, 1, generator=g) if turned else torch.zeros(3, 1)
    delta = 0.02 * torch.randn(1, k, 3, generator=g)
    translation = 0.1 * torch.randn(1, 3, generator=g)
    return Pose(face, rotation_matrix(*angles), *angles, delta, torch.tensor([[1.2]]), translation)


@pytest.mark.parametrize("k", [26, 21, 15])
def test_without_a_change_exactly_the_portrait(k):
    pose = portrait(k)
    assert torch.equal(edited_keypoints(pose, Expression()), transform(pose))


def test_the_head_turns_by_the_angle_to_the_side_that_is_named():
    """In its own axes; the nose, in front of the head, goes right, down, and stays; the crown goes right by the roll."""
    pose = replace(portrait(26, turned=False), expression=torch.zeros(1, 26, 3))
    nose, crown = torch.tensor([[0.0, 0.0, -0.5]]), torch.tensor([[0.0, -0.5, 0.0]])
    pose.canonical[0, :2] = torch.cat([nose, crown])
    at_rest = transform(pose)[0]
    for expression, point, axis in ((Expression(yaw=10.0), 0, 0), (Expression(pitch=10.0), 0, 1), (Expression(roll=10.0), 1, 0)):
        moved = edited_keypoints(pose, expression)[0] - at_rest
        assert float(moved[point, axis]) == pytest.approx(1.2 * 0.5 * np.sin(np.deg2rad(10)), rel=1e-4)
    tilted = portrait(26)
    turned = edited_keypoints(tilted, Expression(yaw=14.0, roll=-5.0)) - edited_keypoints(
        replace(tilted, canonical=0 * tilted.canonical), Expression()
    )
    rotation = torch.linalg.lstsq(tilted.canonical[0], turned[0] / 1.2).solution[None]
    wanted = angle_between(rotation_matrix(torch.zeros(1), torch.tensor([-14.0]), torch.tensor([-5.0])), torch.eye(3)[None])
    assert float(angle_between(rotation, tilted.rotation)) == pytest.approx(float(wanted), abs=0.01)


@pytest.mark.parametrize("slider", NAMES)
def test_the_bundled_keypoints_move_alike_on_both_sides(slider):
    """The mirrored expression of a mirrored face, exactly: only the gaze to the side changes its sign."""
    partner = partners(torch.zeros(1, 26, 3))
    for value in (-1.0, 0.4):
        change = expression_change(26, Expression(**{slider: value}))
        mirrored = expression_change(26, Expression(**{slider: -value if slider == "gaze_x" else value}))
        assert torch.equal(change[partner] * MIRROR, mirrored) and change.abs().max() > 0.005


def test_moves_are_proportional_and_add_up():
    for k in SLIDERS:
        half = expression_change(k, Expression(smile=0.5, gaze_y=-0.5))
        whole = expression_change(k, Expression(smile=1.0)) + expression_change(k, Expression(gaze_y=-1.0))
        assert torch.allclose(2 * half, whole, atol=1e-7)


@pytest.mark.parametrize("k", [26, 21])
def test_each_slider_stays_in_its_part_of_the_face(k):
    for slider in ("eyes", "gaze_x", "gaze_y"):
        for value in (-1.0, 1.0):
            moved = expression_change(k, Expression(**{slider: value})).abs().amax(1).nonzero()[:, 0].tolist()
            assert set(moved) <= set(EYES[k])


def test_the_expression_goes_along_with_the_head():
    """On a head that lies on its side, the gaze to the right of a head is the gaze down in the picture."""
    pose = replace(portrait(26, turned=False), rotation=rotation_matrix(torch.zeros(1), torch.zeros(1), torch.tensor([90.0])))
    iris = (edited_keypoints(pose, Expression(gaze_x=1.0)) - transform(pose))[0, 22]
    assert float(iris[1]) == pytest.approx(1.2 * 0.03, rel=1e-3) and abs(float(iris[0])) < 1e-6


def test_lips_part_and_lids_fall():
    upper, lower = LIPS[26]
    opened = expression_change(26, Expression(mouth=1.0))
    assert float(opened[lower, 1] - opened[upper, 1]) > 0.05
    assert float(expression_change(26, Expression(eyes=-1.0))[24:, 1].min()) > 0.05
    assert float(expression_change(26, Expression(gaze_y=1.0))[22:24, 1].max()) < -0.01


def test_an_open_mouth_of_a_rendered_head_is_what_the_slider_does():
    """The truth of two clips of one motion: the frame with the widest open jaw less the one with the least."""
    heads, names = load_truth(DATA)
    wanted = expression_change(26, Expression(mouth=1.0))
    for clip, name in enumerate(names):
        with np.load(DATA / f"{name}.npz") as file:
            jaw = file["expr"][:, JAW_OPEN].astype(np.float32)
        frames = torch.tensor([int(jaw.argmax()), int(jaw.argmin())])
        assert jaw.max() - jaw.min() > 0.1
        to_unit = torch.tensor([[1 / 64, 0.0, -2.0], [0.0, 1 / 64, -2.0]]).expand(2, 2, 3)
        pose, _ = truth_in_crops(heads, torch.full((2,), clip), frames, to_unit)
        opened, shut = pose.expression @ pose.rotation.mT
        mouth = [5, 8, 9, 20, 21]  # lower lip, below it, chin, jaw
        change, down_and_in = (opened - shut)[mouth, 1:], wanted[mouth, 1:]  # the clips' mouths also go to the sides
        assert float(torch.cosine_similarity(change.flatten(), down_and_in.flatten(), dim=0)) > 0.8, name


def test_other_keypoints_have_no_expression():
    with pytest.raises(InputError, match="Of 15 keypoints it is not known"):
        expression_change(15, Expression(eyes=1.0))
