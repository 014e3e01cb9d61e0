"""Step caching: nothing is reused by default, and otherwise what the settings name; counted in calls of the blocks."""

import copy
from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
import torch

from realportrait_core.animation.mapping import PortraitMotion
from realportrait_core.animation.rendering import render
from realportrait_core.config import DiTConfig
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit import Caching, ClipShape, RealPortraitDiT, StepCache, with_cache
from realportrait_core.errors import InputError
from realportrait_core.motion_map import MotionMaps
from realportrait_core.speed import PRESETS

CFG = DiTConfig(
    hidden=48,
    depth=4,
    heads=4,
    control_depth=2,
    input_sq_size=64,
    motion_channels=6,
    motion_widths=(8, 8),
    clip_frames=3,
    learned_sigma=False,
    prediction="v",
)
SHAPE = ClipShape(64, 64, frames=3, fps=25)


@pytest.fixture
def model() -> RealPortraitDiT:
    torch.manual_seed(0)
    model = RealPortraitDiT(CFG).initialize()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.requires_grad_(False)


@pytest.fixture
def called(model) -> Counter:
    """How often each block has run."""
    counts = Counter()
    for name, blocks in (("block", model.blocks), ("control", model.controlnet)):
        for i, block in enumerate(blocks):
            block.register_forward_hook(lambda *given, key=f"{name} {i}": counts.update([key]))
    return counts


class Steps:
    """Two clips at falling timesteps, their first frame conditional."""

    def __init__(self, model: RealPortraitDiT):
        torch.manual_seed(1)
        self.model, self.z = model, torch.randn(2, 3, 4, 8, 8)
        self.reference = model.encode_reference(torch.randn(2, 4, 8, 8), SHAPE)
        self.control = model.encode_motion_latent(torch.randn(6, 4, 8, 8), 64, 64)
        self.conditional = torch.tensor([[True, False, False]] * 2)

    def __call__(self, t: float, cache: StepCache | None, strength: float = 1.0) -> torch.Tensor:
        t = torch.full((2, 3), t)
        step = self.model if cache is None else partial(cache, self.model)
        return step(self.z, t, SHAPE, self.reference, self.control, self.conditional, strength)


def test_without_caching_the_network_itself_is_called(model):
    assert with_cache(model, Caching()) is model


@pytest.mark.parametrize("caching", [Caching(threshold=1e-12), Caching(control_every=10**6), Caching(2, 1e-12)])
def test_a_step_that_reuses_nothing_is_forward_bit_by_bit(model, called, caching):
    """The cache runs the parts of forward itself: with and without portrait, motion and conditional frames."""
    steps = Steps(model)
    strength = torch.tensor([1.0, 0.3])[:, None, None, None]
    for reference, control, conditional, by in (
        (steps.reference, steps.control, steps.conditional, 1.0),
        (steps.reference, steps.control, None, strength),
        (None, steps.control, None, 0.7),
        (steps.reference, None, steps.conditional, 1.0),
    ):
        given = (steps.z, torch.full((2, 3), 600.0), SHAPE, reference, control, conditional, by)
        called.clear()
        whole = model(*given)
        blocks = dict(called)
        called.clear()
        assert torch.equal(with_cache(model, caching)(*given), whole) and called == blocks


def test_control_runs_at_every_nth_step(model, called):
    steps, cache = Steps(model), StepCache(Caching(control_every=3))
    found = [steps(t, cache) for t in (999.0, 700.0, 500.0, 300.0, 100.0)]
    assert called == {f"block {i}": 5 for i in range(4)} | {f"control {i}": 2 for i in range(2)}
    exact = [steps(t, None) for t in (999.0, 700.0, 500.0, 300.0, 100.0)]
    assert [torch.equal(a, b) for a, b in zip(found, exact)] == [True, False, False, True, False]
    # The residuals of the same timestep give the same result; the strength is that of the call.
    again = StepCache(Caching(control_every=2))
    assert torch.equal(steps(600.0, again), steps(600.0, again))
    again = StepCache(Caching(control_every=2))
    steps(600.0, again)
    assert torch.equal(steps(600.0, again, 0.5), steps(600.0, None, 0.5))


def test_later_blocks_are_skipped_while_the_first_changes_the_same(model, called):
    steps, cache = Steps(model), StepCache(Caching(threshold=1e-3))
    first = steps(600.0, cache)
    kept = steps(600.0, cache)  # the same timestep
    assert called["block 0"] == 2 and {called[key] for key in called if key != "block 0"} == {1}
    torch.testing.assert_close(kept, first, rtol=0, atol=1e-5 * float(first.abs().max()))
    moved = steps(200.0, cache)  # a change of more than a thousandth
    assert {called[key] for key in called if key != "block 0"} == {2}
    assert torch.equal(moved, steps(200.0, None))


def test_the_change_is_measured_from_the_last_full_step(model, called):
    """Each of many small steps is below the threshold; together they pass it."""
    steps, changes = Steps(model), []
    hook = model.blocks[0].register_forward_hook(lambda _, given, out: changes.append(out - given[0]))
    times = [600.0 - i for i in range(12)]
    for t in times:
        steps(t, None)

    def apart(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((b - a).abs().mean() / a.abs().mean())

    threshold = 1.5 * max(apart(a, b) for a, b in pairwise(changes))
    full, expected = 0, [0]
    for i, change in enumerate(changes):
        if apart(changes[full], change) >= threshold:
            full = i
            expected.append(i)
    hook.remove()
    assert 1 < len(expected) < len(times)

    cache, runs = StepCache(Caching(threshold=threshold)), []
    for i, t in enumerate(times):
        before = called["block 3"]
        steps(t, cache)
        if called["block 3"] > before:
            runs.append(i)
    assert runs == expected


def test_both_at_once(model, called):
    """A step that skips the later blocks computes no residual, and still counts for the control's age."""
    steps, cache = Steps(model), StepCache(Caching(control_every=2, threshold=1e-3))
    for t in (600.0, 600.0, 200.0, 100.0):
        steps(t, cache)
    assert (called["block 0"], called["block 3"], called["control 0"]) == (4, 3, 2)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"control_every": 0}, "every 0th step; it must be 1 or more"),
        ({"threshold": -0.1}, "-0.1; it must be finite, 0 .off. or more"),
        ({"threshold": float("nan")}, "nan; it must be finite"),
    ],
)
def test_impossible_values_are_refused(changes, match):
    with pytest.raises(InputError, match=match):
        Caching(**changes)


# Whole animations


def motion(frames: int) -> PortraitMotion:
    torch.manual_seed(2)
    to_crop = torch.diag(torch.tensor([8.0, 8.0, 1.0], dtype=torch.float64))
    disc = torch.tensor([[1 / 24, 0, -32 / 24], [0, 1 / 24, -32 / 24]])

    def maps(count: int) -> MotionMaps:
        return MotionMaps(torch.randn(count, 6, 8, 8), to_crop.repeat(count, 1, 1), disc.repeat(count, 1, 1), 64, 64)

    return PortraitMotion(maps(frames), maps(1), torch.eye(3, dtype=torch.float64), (64, 64))


def test_each_clip_starts_anew(model, called):
    """5 frames are two clips of 3: each computes its first control, whatever the one before left."""
    given = dict(z_r=torch.randn(1, 4, 8, 8), motion=motion(5), steps=3)
    exact = render(model, linear_schedule(), **given)
    assert called["control 0"] == called["block 3"] == 6
    called.clear()
    cached = render(model, linear_schedule(), **given, caching=Caching(control_every=3))
    assert called["control 0"] == 2 and called["block 3"] == 6
    assert not torch.equal(cached, exact)
    one = render(model, linear_schedule(), **{**given, "motion": motion(5)}, caching=Caching(control_every=3))
    assert torch.equal(one, cached)
    assert torch.equal(render(model, linear_schedule(), **given, caching=Caching()), exact)


def test_a_network_in_bf16_animates_nearly_the_same(model):
    given = dict(z_r=torch.randn(1, 4, 8, 8), motion=motion(5), steps=3)
    exact = render(model, linear_schedule(), **given)
    rounded = render(copy.deepcopy(model).bfloat16(), linear_schedule(), **given)
    assert rounded.dtype == torch.float32
    assert 1e-4 < (rounded - exact).std() / exact.std() < 0.05


def test_each_preset_is_another_and_shorter_way(model, called):
    given = dict(z_r=torch.randn(1, 4, 8, 8), motion=motion(3))
    results, work = [], []
    for speed in PRESETS.values():
        called.clear()
        results.append(render(model, linear_schedule(), steps=speed.steps, **given, solver=speed.solver, caching=speed.caching))
        work.append(called.total())
    assert torch.isfinite(torch.stack(results)).all() and not torch.equal(*results)
    assert list(PRESETS) == ["balanced", "fast"] and work[1] < work[0] <= 10 * 6
