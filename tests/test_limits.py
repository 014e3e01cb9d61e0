"""Settings at both ends of their ranges: a result that is a picture, or a refusal in a sentence."""

from types import SimpleNamespace

import pytest
import torch
from test_memory import rendered
from test_nonfinite import motion, network  # noqa: F401
from toy import PAPER, TOY

from realportrait_core.diffusion.sampling import cpu_noise, sample_clip
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.errors import InputError

SOLVERS = ("ddim", "ddim_trailing", "dpmpp_2m", "ancestral")
MOST = {"ddim": 1000, "ddim_trailing": 999, "dpmpp_2m": 999, "ancestral": 1000}


@pytest.fixture(scope="module", params=[TOY.dit, PAPER], ids=["mini", "paper"])
def dit(request):
    return network(request.param)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 999, 1000])
def test_one_step_and_a_thousand(solver, steps):
    """A network that knows the picture ends on it, whatever the number of steps."""
    schedule, picture = linear_schedule(), torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(3))

    def denoise(z, t, conditional):
        abar = schedule.alphas_cumprod[t.long()].float()[:, None, None, None]
        return (z - abar.sqrt() * picture) / (1 - abar).sqrt()  # epsilon

    given = denoise, torch.randn(2, 4, 2, 2), schedule, steps, "epsilon", None, None, solver, cpu_noise(0)
    if steps > MOST[solver]:
        with pytest.raises(InputError, match=f"{steps} sampling steps; there must be 1 to {MOST[solver]}"):
            sample_clip(*given)
        return
    found = sample_clip(*given)
    assert (found - picture).abs().max() < 0.05


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_steps_are_refused(solver, steps):
    with pytest.raises(InputError, match=f"{steps} sampling steps; there must be 1 to"):
        sample_clip(None, torch.zeros(2, 4, 2, 2), linear_schedule(), steps, "epsilon", None, None, solver, cpu_noise(0))


def test_seeds_of_64_bits_and_below_0(dit, motion):  # noqa: F811
    """Seeds count modulo 2^64, over the clips too: the clip after the last seed takes 0."""
    found = {seed: rendered(dit, motion, seed=seed, steps=1) for seed in (0, 1, 2**32 - 2, 2**64 - 1)}
    assert all(latents.isfinite().all() for latents in found.values())
    # Of a seed PyTorch's generator on the CPU, ComfyUI's too, reads the lower 32 bits.
    assert len({latents.numpy().tobytes() for latents in found.values()}) == 4
    assert torch.equal(rendered(dit, motion, seed=-1, steps=1), found[2**64 - 1])
    assert torch.equal(rendered(dit, motion, seed=2**64, steps=1), found[0])


def test_strength_0_is_the_portrait_without_motion(dit, motion):  # noqa: F811
    other = SimpleNamespace(maps=motion.maps[list(reversed(range(len(motion.maps))))], portrait_maps=motion.portrait_maps)
    still = rendered(dit, motion, strength=0.0)
    assert still.isfinite().all() and torch.equal(rendered(dit, other, strength=0.0), still), "no motion reaches the frames"
    assert not torch.equal(rendered(dit, other), rendered(dit, motion))
    # Guidance leads from the portrait without motion to itself, but for rounding.
    torch.testing.assert_close(rendered(dit, motion, strength=0.0, guidance=7.5), still, atol=1e-3, rtol=1e-3)


def test_guidance_at_both_ends(dit, motion):  # noqa: F811
    assert rendered(dit, motion, guidance=100.0).isfinite().all()
    for guidance in (0.0, 0.99, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="it must be finite, 1 .off. or more"):
            rendered(dit, motion, guidance=guidance)
