"""NaN and infinity in sampling: found at their step, sampled again in a wider dtype, refused where that does not help."""

import copy
from types import SimpleNamespace

import pytest
import torch
from logged import said
from test_memory import rendered
from toy import PAPER, TOY

from realportrait_core.animation.clips import plan
from realportrait_core.animation.rendering import clip_sampler
from realportrait_core.diffusion.nonfinite import sample_finite
from realportrait_core.diffusion.sampling import cpu_noise, sample_clip
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import NonFiniteError
from realportrait_core.motion_map import MotionMaps

FRAMES = 7  # two clips of 4
TOO_LARGE = 2.0**16  # activations of the first MLP become some ten thousand, and of fp16 the largest number is 65504


def network(cfg, scale: float = 1.0) -> RealPortraitDiT:
    """A toy whose first MLP is scaled up inside and down again behind: in fp32 as good as without."""
    torch.manual_seed(0)
    made = RealPortraitDiT(cfg).initialize().eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    made.blocks[0].mlp.fc1.weight *= scale
    made.blocks[0].mlp.fc1.bias *= scale
    made.blocks[0].mlp.fc2.weight /= scale
    return made


@pytest.fixture(scope="module")
def motion():
    """A motion of FRAMES frames, as far as `render` reads it."""
    generator = torch.Generator().manual_seed(1)

    def maps(frames):
        to_crop = torch.diag(torch.tensor([8.0, 8.0, 1.0], dtype=torch.float64)).repeat(frames, 1, 1)
        disc = torch.tensor([[3 / 64, 0, -1.5], [0, 3 / 64, -1.5]], dtype=torch.float64).repeat(frames, 1, 1)
        return MotionMaps(torch.randn(frames, 6, 8, 8, generator=generator).half(), to_crop, disc, 64, 64)

    return SimpleNamespace(maps=maps(FRAMES), portrait_maps=maps(1))


@pytest.mark.parametrize("cfg", [TOY.dit, PAPER], ids=["mini", "paper"])
def test_what_overflows_in_fp16_is_sampled_in_fp32(cfg, motion, caplog):
    half = network(cfg, TOO_LARGE).half()
    before = {key: value.clone() for key, value in half.state_dict().items()}
    assert all(value.isfinite().all() for value in before.values()), "the weights themselves fit into fp16"
    found = rendered(half, motion)
    assert said(caplog) == [  # the second clip's first frame is known
        f"Frames {frames} of 4 frames of the clip, in fp16: sampled again in fp32."
        for frames in ("0 to 3 became NaN or infinite at step 1 of 2, in 4", "3 to 6 became NaN or infinite at step 1 of 2, in 3")
    ]
    assert torch.equal(found, rendered(copy.deepcopy(half).float(), motion)), "the same noise, the same weights"
    after = half.state_dict()
    assert all(after[key].dtype == torch.float16 and torch.equal(after[key], value) for key, value in before.items())


def test_nothing_is_done_where_fp16_suffices(motion, caplog):
    half = network(TOY.dit).half()
    assert torch.equal(rendered(half, motion), rendered(half, motion)) and not said(caplog)


@pytest.mark.parametrize("dtype, tried", [(torch.float16, ["fp16", "fp32"]), (torch.bfloat16, ["bf16", "fp32"]), (None, ["fp32"])])
def test_what_cannot_be_mended_is_refused(motion, dtype, tried):
    broken = network(TOY.dit).to(dtype)
    broken.blocks[1].mlp.fc1.weight[3, 5] = torch.nan
    runs = []
    broken.final_layer.register_forward_pre_hook(lambda *given: runs.append(1))  # of its wider copy too
    with pytest.raises(NonFiniteError) as end:
        rendered(broken, motion, guidance=1.0)
    said = "; then ".join(f"at step 1 of 2, in 4 of 4 frames of the clip, in {name}" for name in tried)
    assert str(end.value).startswith(f"Frames 0 to 3 became NaN or infinite {said}. No wider dtype is left: check the portrait")
    assert len(runs) == len(tried), "it stops at the step that fails"


def test_the_error_names_the_step_and_stops_there():
    steps, calls = [], []

    def denoise(z, t, conditional):
        calls.append(1)
        out = torch.zeros_like(z)
        out[2] = torch.inf if len(calls) == 3 else 0.0
        return out

    noise = torch.randn(4, 4, 8, 8)
    for solver in ("ddim", "ddim_trailing", "dpmpp_2m", "ancestral"):
        calls.clear(), steps.clear()
        with pytest.raises(NonFiniteError, match="at step 3 of 6, in 1 of 4 frames of the clip.*wider dtype") as end:
            sample_clip(denoise, noise, linear_schedule(), 6, "epsilon", None, steps.append, solver, cpu_noise(0))
        assert end.value.step == 3 and len(calls) == 3 and steps == [0, 1], "no step after it, and none reported as taken"


def test_the_next_clip_does_not_depend_on_the_one_that_failed(motion):
    """A run that resumes at clip 1 has the frames of one that also sampled clip 0, which needed fp32."""
    dit = network(TOY.dit).half()
    sampler = clip_sampler(dit, linear_schedule(), torch.zeros(1, 4, 8, 8), motion.portrait_maps, steps=2)
    first, second = plan(FRAMES, 4)
    known = torch.zeros(1, 4, 8, 8)
    alone = sampler(second, motion.maps[second.frames], known)
    with pytest.raises(NonFiniteError):
        sampler(first, MotionMaps(motion.maps.f[:4] * torch.inf, *list(vars(motion.maps[:4]).values())[1:]), None)
    assert torch.equal(sampler(second, motion.maps[second.frames], known), alone)


def test_other_errors_pass():
    def work(dtype):
        raise ValueError("other")

    with pytest.raises(ValueError, match="other"):
        sample_finite(work, torch.float16, "Frames 0 to 3")
