"""The diffusion process against IDDPM's own numbers, and conditional frames in every sampler."""

from dataclasses import replace

import pytest
import torch
from golden import load
from torch import Tensor

from realportrait_core.config import PAPER
from realportrait_core.diffusion.conditional import Known, known_first_frames, training_mask
from realportrait_core.diffusion.guidance import guided
from realportrait_core.diffusion.objective import diffusion_loss, noise_clip
from realportrait_core.diffusion.sampling import (
    ancestral_step,
    cpu_noise,
    ddim_step,
    extrapolate_x0,
    predict_x0,
    sample_ancestral,
    sample_clip,
    sample_ddim,
    sample_dpmpp_2m,
)
from realportrait_core.diffusion.schedule import (
    Schedule,
    learned_log_variance,
    linear_schedule,
    posterior_mean,
    q_sample,
    space_timesteps,
    target,
    to_epsilon,
    to_x0,
)
from realportrait_core.dit.cache import EXACT
from realportrait_core.errors import InputError
from realportrait_core.speed import PRESETS, STEPS, default_sampling

FULL = linear_schedule()
NOBODY = torch.zeros(8, dtype=torch.bool)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load("dit", "iddpm")[0]


def same(a: Tensor, b: Tensor, room: float = 1e-6) -> bool:
    assert a.shape == b.shape
    return float((a - b).abs().max()) <= room * float(b.abs().max())


def frames(x: Tensor) -> Tensor:
    """(B, c, T, h, w) of the original -> (B T, c, h, w)."""
    return x.transpose(1, 2).flatten(0, 1)


def rounded(schedule: Schedule) -> Schedule:
    """The original's tables are float32, in which 1 - abar_0 is off by 2e-4; here they are float64, and rounded to compare."""
    return Schedule(schedule.betas.float(), schedule.timesteps)


def stand_in(golden: dict[str, Tensor]):
    """The small function, in place of a network, that the original's numbers were computed with."""

    def denoise(z: Tensor, t: Tensor, conditional: Tensor) -> Tensor:
        mixed = torch.einsum("oc,lchw->lohw", golden["fake.W"], z) + golden["fake.b"][:, None, None]
        return torch.tanh(mixed + 0.1 * torch.sin(t / 100)[:, None, None, None])

    return denoise


# Parity


def test_tables_are_iddpms(golden):
    assert same(FULL.betas, golden["betas64"], 1e-15)  # float64: a processor may fuse product and sum
    assert same(FULL.alphas_cumprod, golden["alphas_cumprod64"], 1e-13)
    for steps in (8, 50, 100):
        schedule = FULL.respaced(steps)
        assert torch.equal(schedule.timesteps, golden[f"s{steps}.timestep_map"])
        for name, table in (
            ("betas", schedule.betas),
            ("alphas_cumprod", schedule.alphas_cumprod),
            ("posterior_log_variance_clipped", rounded(schedule).posterior_log_variance),
        ):
            assert same(table.float(), golden[f"s{steps}.{name}"]), (steps, name)


def test_forward_process_is_iddpms(golden):
    t = golden["q.t"][:, None].expand(2, 4)
    x_0, noise = golden["x0"].transpose(1, 2), golden["noise"].transpose(1, 2)
    x_t = q_sample(rounded(FULL), x_0, t, noise)
    assert same(x_t, golden["q.x_t"].transpose(1, 2))
    assert same(posterior_mean(rounded(FULL), x_t, t, x_0), golden["q.post_mean"].transpose(1, 2))
    assert same(rounded(FULL).posterior_log_variance[golden["q.t"]], golden["q.post_logvar"].flatten())


@pytest.mark.parametrize("name", ["hi", "mid", "zero"])
def test_steps_are_iddpms(golden, name):
    of = {key.rpartition(".")[2]: golden[key] for key in golden if key.startswith(f"p50.{name}.")}
    schedule, x, t = rounded(FULL.respaced(50)), frames(of["x"]), of["t"].repeat_interleave(4)
    x_0, variance = predict_x0(stand_in(golden), schedule, x, t, "epsilon", NOBODY)
    assert same(x_0, frames(of["pred_xstart"]))
    assert same(posterior_mean(schedule, x, t, x_0), frames(of["mean"]))
    assert same(learned_log_variance(schedule, t, variance), frames(of["log_variance"]))
    assert same(ancestral_step(schedule, x, t, x_0, variance, frames(of["noise"])), frames(of["sample"]))
    assert same(ddim_step(schedule, x, t, x_0), frames(of["ddim_eta0"]))
    assert same(ddim_step(schedule, x, t, x_0, 1.0, frames(of["ddim_noise"])), frames(of["ddim_eta1"]))


@pytest.mark.parametrize("index", [10, 25, 49])
def test_steps_of_noised_frames_in_a_masked_clip_are_iddpms(golden, index):
    """Where the original's mask is 1. Its conditional frames (0) are noised at the last step; ours come back untouched."""
    schedule, t = rounded(FULL.respaced(50)), torch.full((8,), index)
    x, noise, out = (frames(golden[f"pm50.m{index}.{name}"]) for name in ("x", "n2", "sample"))
    x_0, variance = predict_x0(stand_in(golden), schedule, x, t, "epsilon", NOBODY)
    noised = golden["pm50.mask"].flatten() == 1
    assert same(ancestral_step(schedule, x, t, x_0, variance, noise)[noised], out[noised])


def test_whole_loops_are_iddpms(golden):
    schedule, start, told = rounded(FULL.respaced(50)), frames(golden["loop.z"]), []

    def denoise(z, t, conditional):
        told.append(float(t[0]))
        return stand_in(golden)(z, t, conditional)

    noises = iter(golden["loop.ancestral50.noises"])
    out = sample_ancestral(denoise, start, schedule, "epsilon", lambda like: frames(next(noises)))
    assert same(out, frames(golden["loop.ancestral50"]), 1e-5)
    assert told == golden["loop.ancestral50.model_t"].tolist()
    assert same(sample_ddim(denoise, start, schedule, "epsilon"), frames(golden["loop.ddim50"]), 1e-5)


@pytest.mark.parametrize("name", ["a", "mask", "mask_t0", "t0"])
def test_losses_are_iddpms(golden, name):
    schedule, t = rounded(FULL), golden[f"loss.{name}.t"][:, None].expand(2, 4)
    x_0, noise = golden["loss.x_start"].transpose(1, 2), golden["loss.noise"].transpose(1, 2)
    mask = golden.get(f"loss.{name}.mask")
    conditional = None if mask is None else ~mask
    x_t = noise_clip(schedule, x_0, t, noise, conditional)
    out = stand_in(golden)(x_t.flatten(0, 1), t.flatten().float(), NOBODY).unflatten(0, (2, 4))
    simple = diffusion_loss(schedule, out[:, :, :4], x_0, x_t, t, noise, "epsilon", conditional)
    assert same(simple, golden[f"loss.{name}.mse"])
    whole = diffusion_loss(schedule, out, x_0, x_t, t, noise, "epsilon", conditional)
    assert same(whole, golden[f"loss.{name}.loss"], 1e-5)
    assert same(whole - simple, golden[f"loss.{name}.vb"], 1e-5)


# The process


def test_noise_is_nearly_pure_at_the_end():
    abar = FULL.alphas_cumprod
    sigma = ((1 - abar) / abar).sqrt()  # as samplers of the host count noise
    assert abs(float(sigma[-1]) - 157.407) < 1e-3 and abs(float(sigma[0]) - 0.0100005) < 1e-7


def test_timesteps_are_evenly_spaced_with_both_ends():
    assert space_timesteps(50).tolist() == [round(i * 999 / 49) for i in range(50)]
    assert (
        space_timesteps(1).tolist() == [999]
        and space_timesteps(2).tolist() == [0, 999]
        and space_timesteps(1000).tolist() == list(range(1000))
    )
    for steps in (0, -3, 1001):
        with pytest.raises(InputError, match=f"{steps} sampling steps"):
            space_timesteps(steps)


def test_trailing_timesteps_have_even_gaps_down_to_the_picture():
    assert FULL.trailing(9).timesteps.tolist() == [111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert FULL.trailing(1).timesteps.tolist() == [999]


def test_both_predictions_mean_the_same_picture():
    torch.manual_seed(0)
    x_0, noise, t = torch.randn(5, 4, 6, 6), torch.randn(5, 4, 6, 6), torch.tensor([10, 200, 500, 800, 950])
    x_t = q_sample(FULL, x_0, t, noise)
    for prediction in ("epsilon", "v"):
        out = target(FULL, x_0, t, noise, prediction)
        assert torch.allclose(to_x0(FULL, x_t, t, out, prediction), x_0, atol=1e-3)
    assert torch.allclose(to_epsilon(FULL, x_t, t, x_0), noise, atol=1e-4)
    abar = FULL.alphas_cumprod[500].float()
    assert torch.allclose(target(FULL, x_0, t, noise, "v")[2], abar.sqrt() * noise[2] - (1 - abar).sqrt() * x_0[2])


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("sampler", ["ddim", "ddim eta 1", "dpmpp_2m", "ancestral"])
def test_a_denoiser_that_knows_the_picture_ends_on_it(prediction, sampler):
    torch.manual_seed(0)
    picture, schedule = torch.randn(3, 4, 6, 6), FULL.respaced(12)

    def denoise(z, t, conditional):
        return target(FULL, picture, t.long(), to_epsilon(FULL, z, t.long(), picture), prediction)

    assert torch.allclose(run(sampler, denoise, torch.randn(3, 4, 6, 6), schedule, prediction), picture, atol=1e-3)


def run(sampler: str, denoise, noise: Tensor, schedule: Schedule, prediction: str, known: Known | None = None, callback=None):
    if sampler == "ancestral":
        return sample_ancestral(denoise, noise, schedule, prediction, cpu_noise(5), known, callback)
    if sampler == "dpmpp_2m":
        return sample_dpmpp_2m(denoise, noise, schedule, prediction, known, callback)
    eta = 1.0 if sampler == "ddim eta 1" else 0.0
    return sample_ddim(denoise, noise, schedule, prediction, eta, cpu_noise(5), known, callback)


def test_second_order_is_nearer_with_as_many_steps():
    """Data that are N(0, 0.5^2) have a denoiser in closed form, and the exact way from noise scales it by the deviations."""
    torch.manual_seed(0)
    noise = torch.randn(2, 4, 6, 6)

    def denoise(z, t, conditional):
        abar = FULL.alphas_cumprod[t.long()][:, None, None, None]
        x_0 = 0.25 * abar.sqrt() / (0.25 * abar + 1 - abar) * z
        return to_epsilon(FULL, z, t.long(), x_0)

    abar = FULL.alphas_cumprod[-1]
    exact = noise.double() * 0.5 / (0.25 * abar + 1 - abar).sqrt()

    def error(sampler: str, steps: int) -> float:
        return float((sample_clip(denoise, noise.double(), FULL, steps, "epsilon", solver=sampler) - exact).abs().max())

    assert error("dpmpp_2m", 20) < 0.4 * error("ddim", 20)
    assert error("dpmpp_2m", 40) < 0.25 * error("dpmpp_2m", 20)


def contrast(steps: int, solver: str) -> float:
    """How much contrast is left of data that are -0.5 or 0.5 in every value, by an imperfect network: its logits are 0.8 of the
    posterior's, so that at every noise level its picture is too near to the mean."""
    torch.manual_seed(0)

    def denoise(z, t, conditional):
        abar = FULL.alphas_cumprod[t.long()][:, None, None, None]
        x_0 = 0.5 * torch.tanh(0.8 * 0.5 * abar.sqrt() * z / (1 - abar))
        return target(FULL, x_0, t.long(), to_epsilon(FULL, z, t.long(), x_0), "v")

    noise = torch.randn(4, 4, 16, 16, dtype=torch.float64)
    return float(sample_clip(denoise, noise, FULL, steps, "v", solver=solver, draw=cpu_noise(1)).std()) / 0.5


@pytest.mark.parametrize(("steps", "solver"), [(50, "ancestral"), (50, "ddim"), (STEPS, "ddim"), (4, "ddim")])
def test_an_imperfect_network_still_decides(steps, solver):
    """Few steps may not end in the average of the pictures that fit, a blur that no perfect denoiser shows."""
    assert contrast(steps, solver) > 0.99


def test_presets_lose_contrast_where_the_last_step_is_long():
    """Trailing spacing jumps to the picture from t = 999 / steps, and takes the network's hedged picture as it is: the presets keep
    four fifths and two thirds of the contrast of the hardest data, two steps a tenth. Distilled weights are trained for it."""
    balanced, fast = (contrast(PRESETS[name].steps, PRESETS[name].solver) for name in ("balanced", "fast"))
    assert 0.78 < balanced < 0.84 and 0.68 < fast < 0.74
    assert contrast(2, "ddim_trailing") < 0.2


def test_extrapolation_is_a_line_in_the_log_of_the_signal_to_noise_ratio():
    schedule = FULL.respaced(6)
    abar = schedule.alphas_cumprod
    rise = (abar / (1 - abar)).log() / 2
    t = torch.arange(1, 5)
    line = [3 * at - 2 for at in (rise[t], rise[t + 1], (rise[t] + rise[t - 1]) / 2)]
    now, before, ahead = (values[:, None, None, None] for values in line)
    torch.testing.assert_close(extrapolate_x0(schedule, now, before, t), ahead)
    assert torch.equal(extrapolate_x0(schedule, now, before, torch.zeros(4, dtype=torch.long)), now)


def test_a_clip_is_sampled_by_the_solver_that_is_named(golden):
    torch.manual_seed(0)
    noise, even = torch.randn(3, 4, 6, 6), FULL.respaced(5)
    for solver, schedule in (("ddim", even), ("dpmpp_2m", FULL.trailing(5)), ("ancestral", even)):
        expected = run(solver, stand_in(golden), noise, schedule, "v")
        assert torch.equal(sample_clip(stand_in(golden), noise, FULL, 5, "v", solver=solver, draw=cpu_noise(5)), expected)
    expected = sample_ddim(stand_in(golden), noise, FULL.trailing(5), "v")
    assert torch.equal(sample_clip(stand_in(golden), noise, FULL, 5, "v", solver="ddim_trailing"), expected)
    with pytest.raises(InputError, match="solver is 'heun'; .* ddim, ddim_trailing, dpmpp_2m, ancestral"):
        sample_clip(stand_in(golden), noise, FULL, 5, "v", solver="heun")
    for steps in (0, 1000):
        with pytest.raises(InputError, match=f"{steps} sampling steps; there must be 1 to 999"):
            sample_clip(stand_in(golden), noise, FULL, steps, "v", solver="dpmpp_2m")


# Guidance


def scaled(golden, factor: float):
    """A network whose prediction differs from the stand-in's."""
    return lambda z, t, conditional: factor * stand_in(golden)(z, t, conditional)


def test_guidance_of_1_is_the_conditional_prediction_alone(golden):
    def never(z, t, conditional):
        raise AssertionError("called without need")

    denoise = stand_in(golden)
    assert guided(denoise, never, 1.0) is denoise


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_guidance_extrapolates_the_picture_as_stock_samplers_do(golden, prediction):
    """u + g (c - u) of predictions is the same of the pictures x_0 that they mean, which is how a host applies its cfg."""
    torch.manual_seed(0)
    z, t, known = torch.randn(3, 4, 6, 6), torch.full((3,), 700), torch.zeros(3, dtype=torch.bool)
    c, u = stand_in(golden)(z, t.float(), known), scaled(golden, 0.3)(z, t.float(), known)
    out = guided(stand_in(golden), scaled(golden, 0.3), 2.5)(z, t.float(), known)
    x_c, x_u, x = (to_x0(FULL, z, t, said[:, :4], prediction) for said in (c, u, out))
    assert same(x, x_u + 2.5 * (x_c - x_u), 1e-5) and float((x - x_c).abs().max()) > 0.1


def test_guidance_leaves_the_learned_variance_to_the_conditional_call():
    c, u = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    z = torch.zeros(2, 4, 4, 4)
    out = guided(lambda *given: c, lambda *given: u, 3.0)(z, torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    assert torch.equal(out[:, 4:], c[:, 4:]) and same(out[:, :4], 3 * c[:, :4] - 2 * u[:, :4], 1e-6)


def test_known_frames_stay_exact_under_guidance(golden):
    torch.manual_seed(0)
    noise, head = torch.randn(5, 4, 6, 6), torch.randn(2, 4, 6, 6)
    denoise = guided(stand_in(golden), scaled(golden, 0.5), 4.0)
    assert torch.equal(sample_clip(denoise, noise, FULL, 6, "v", head)[:2], head)


@pytest.mark.parametrize("guidance", [0.9, 0.0, -1.0, float("nan"), float("inf")])
def test_guidance_out_of_range_is_refused(golden, guidance):
    with pytest.raises(InputError, match="The guidance is .*; it must be finite, 1 \\(off\\) or more"):
        guided(stand_in(golden), stand_in(golden), guidance)


# Conditional frames


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("sampler", ["ddim", "ddim eta 1", "dpmpp_2m", "ancestral"])
def test_conditional_frames_stay_bit_identical(golden, sampler, prediction):
    """The network always receives them clean, at t = 0, whatever it predicts for them."""
    torch.manual_seed(0)
    known = Known(100 * torch.randn(6, 4, 6, 6), torch.tensor([1, 0, 0, 1, 0, 1]).bool())
    clean, steps = known.latents[known.mask], []

    def denoise(z, t, conditional):
        assert torch.equal(z[known.mask], clean) and not t[known.mask].any() and torch.equal(conditional, known.mask)
        assert t[~known.mask].unique().tolist() == [FULL.respaced(7).timesteps[6 - len(steps)].item()]
        return stand_in(golden)(z, t, conditional).index_fill(0, torch.tensor([0, 3]), float("nan"))

    out = run(sampler, denoise, torch.randn(6, 4, 6, 6), FULL.respaced(7), prediction, known, steps.append)
    assert torch.equal(out[known.mask], clean)
    assert torch.isfinite(out).all() and steps == list(range(7))


def test_clip_continues_from_known_frames(golden):
    torch.manual_seed(0)
    noise, head = torch.randn(5, 4, 6, 6), torch.randn(2, 4, 6, 6)
    out = sample_clip(stand_in(golden), noise, FULL, 6, "v", head)
    assert torch.equal(out[:2], head)
    assert torch.equal(
        sample_clip(stand_in(golden), noise, FULL, 6, "v")[2:], out[2:]
    )  # this network has no attention between frames
    for wrong in (torch.randn(5, 4, 6, 6), torch.randn(0, 4, 6, 6), torch.randn(1, 4, 6, 5)):
        with pytest.raises(InputError, match=rf"Known latents \({len(wrong)}, .*1 to 4 frames"):
            known_first_frames(wrong, noise)


def test_samplers_leave_their_inputs_alone(golden):
    torch.manual_seed(0)
    noise, known = torch.randn(4, 4, 6, 6), Known(torch.randn(4, 4, 6, 6), torch.tensor([1, 0, 0, 0]).bool())
    before = noise.clone(), known.latents.clone(), known.mask.clone()
    for sampler in ("ddim", "dpmpp_2m", "ancestral"):
        run(sampler, stand_in(golden), noise, FULL.respaced(4), "epsilon", known)
    assert all(torch.equal(a, b) for a, b in zip(before, (noise, known.latents, known.mask)))


def test_a_seed_is_a_seed():
    like = torch.zeros(2, 4, 6, 6)
    a, b = cpu_noise(3), cpu_noise(3)
    first, second = a(like), a(like)
    assert torch.equal(first, b(like)) and torch.equal(second, b(like)) and not torch.equal(first, second)
    assert not torch.equal(first, cpu_noise(4)(like))


def test_noise_is_left_out_of_conditional_frames_in_training():
    torch.manual_seed(0)
    x_0, noise, conditional = torch.randn(2, 8, 4, 6, 6), torch.randn(2, 8, 4, 6, 6), training_mask(2, 8)
    conditional[0, 0] = True
    t = torch.full((2, 8), 600)
    x_t = noise_clip(FULL, x_0, t, noise, conditional)
    assert torch.equal(x_t[conditional], x_0[conditional])
    assert torch.equal(x_t[~conditional], q_sample(FULL, x_0, t, noise)[~conditional])

    out = torch.randn(2, 8, 4, 6, 6)
    loss = diffusion_loss(FULL, out, x_0, x_t, t, noise, "v", conditional)
    out[conditional] = 1e6  # predictions without loss
    assert torch.equal(diffusion_loss(FULL, out, x_0, x_t, t, noise, "v", conditional), loss)


def test_training_masks_are_first_and_last_frames():
    mask = training_mask(20_000, 16, torch.Generator().manual_seed(0))
    inside = mask[:, 4:12]
    assert not inside.any()  # at most L/4 at either end
    first, last = mask[:, 0], mask[:, 15]
    shares = {"none": ~first & ~last, "first": first & ~last, "last": ~first & last, "both": first & last}
    for name, share in (("none", 0.5), ("first", 0.2), ("last", 0.1), ("both", 0.2)):
        assert abs(float(shares[name].float().mean()) - share) < 0.02, name
    assert (mask[:, :4].int().diff(dim=1) <= 0).all() and (mask[:, 12:].int().diff(dim=1) >= 0).all()  # without holes
    assert mask[:, 3].any() and mask[:, 12].any()
    assert not training_mask(100, 1).any() and not training_mask(100, 2).any()
    assert (~training_mask(100, 3)).any(dim=1).all()


# What weights are sampled with where nothing else is chosen


@pytest.mark.parametrize(
    "weights, given, expected",
    [
        ({}, {}, (50, "ancestral")),  # PAPER
        ({"learned_sigma": False}, {}, (50, "ddim")),
        ({"prediction": "v", "learned_sigma": False}, {}, (10, "ddim")),
        ({"distilled_steps": 4}, {}, (4, "ddim_trailing")),
        ({}, {"steps": 20}, (20, "ancestral")),
        ({}, {"solver": "dpmpp_2m"}, (50, "dpmpp_2m")),
        ({"prediction": "v"}, {"steps": 20, "solver": "dpmpp_2m"}, (20, "dpmpp_2m")),
        ({"distilled_steps": 4}, {"steps": 20}, (4, "ddim_trailing")),
    ],
)
def test_weights_are_sampled_as_they_were_trained(weights, given, expected):
    speed = default_sampling(replace(PAPER.dit, **weights), **given)
    assert (speed.steps, speed.solver) == expected and speed.caching == EXACT
