"""The paper's sampling in the host, by its own nodes and by ours: the same frames as the core's, from the same noises."""

import pytest
import tiny
import torch

FRAMES, SEED = 4, 11
KNOWN = torch.tensor([True, False, False, True])


@pytest.fixture
def load(pack, tmp_path):
    """load(prediction="epsilon", ...) -> the MODEL of tiny weights."""

    def run(**changes):
        return pack("nodes.host.model").load(tiny.dit_file(pack, tmp_path / "dit.safetensors", **changes), "default")

    return run


@pytest.fixture
def maps(pack):
    """Of the clip and of the portrait."""
    return tiny.maps(pack, FRAMES), tiny.maps(pack, 1, seed=5)


@pytest.fixture
def custom(host, pack, maps):
    """SamplerCustomAdvanced with CFGGuider and the noise of a seed, or none: the LATENT's samples."""
    from comfy_extras.nodes_custom_sampler import CFGGuider, DisableNoise, RandomNoise, SamplerCustomAdvanced

    def run(model, sampler, sigmas, latent, cfg=1.0, seed=SEED):
        positive, negative = pack("nodes.host.conditioning").conditioning(tiny.latent(1), *maps, 1.0)
        (guider,) = CFGGuider.execute(model, positive, negative, cfg).result
        (noise,) = (DisableNoise.execute() if seed is None else RandomNoise.execute(seed)).result
        return SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).result[0]["samples"]

    return run


@pytest.fixture
def paper(run_node):
    """paper(model, steps) -> SAMPLER, SIGMAS."""

    def run(model, steps):
        return *run_node("RealPortraitIDDPMSampler"), *run_node("RealPortraitSigmas", model=model, steps=steps)

    return run


def clip(known=None):
    """A LATENT in which the frames of `known` are."""
    if known is None:
        return {"samples": torch.zeros(FRAMES, 4, 8, 8)}
    samples = torch.where(known[:, None, None, None], tiny.latent(FRAMES, seed=9), 0)
    return {"samples": samples, "noise_mask": (~known).float()[:, None, None, None].expand(-1, 1, 8, 8)}


def by_the_core(pack, model, maps, steps, known=None):
    """The core's own ancestral sampling with the model's weights, unscaled as the host's LATENT; the seed's stream of noise."""
    sampling, schedule = pack("realportrait_core.diffusion.sampling"), pack("realportrait_core.diffusion.schedule")
    shape = pack("realportrait_core.dit.embed").ClipShape(64, 64, 16, 12.5)
    core = pack("realportrait_core.dit.model").RealPortraitDiT(model.model.model_config.dit)
    core.load_state_dict(model.model.diffusion_model.state_dict())
    whole, own = (of.to(dtype=torch.float32) for of in maps)
    reference = core.encode_reference(tiny.latent(1) * 0.18215, shape, own)
    control = core.encode_motion(whole, reference)

    def denoise(z, t, conditional):
        return core(z[None], t[None], shape, reference, control, conditional[None], 1.0)[0]

    if known is not None:
        known = pack("realportrait_core.diffusion.conditional").Known(clip(known)["samples"] * 0.18215, known)
    draw = sampling.cpu_noise(SEED)
    noise = draw(torch.zeros(FRAMES, 4, 8, 8))
    respaced = schedule.linear_schedule().respaced(steps)
    return sampling.sample_ancestral(denoise, noise, respaced, core.cfg.prediction, draw, known) / 0.18215


def close(a, b, room=1e-4) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= room * float(b.abs().max())


# ---- the levels ----


@pytest.mark.parametrize("steps", [1, 2, 50, 1000])
def test_sigmas_are_those_of_iddpm(pack, run_node, load, steps):
    """The host finds in them the very timesteps of the respaced process."""
    model = load()
    (sigmas,) = run_node("RealPortraitSigmas", model=model, steps=steps)
    respaced = pack("realportrait_core.diffusion.schedule").linear_schedule().respaced(steps)
    expected = (1 / respaced.alphas_cumprod - 1).sqrt().flip(0)
    assert sigmas.shape == (steps + 1,) and sigmas[-1] == 0 and sigmas.dtype == torch.float32
    assert torch.allclose(sigmas[:-1].double(), expected, rtol=1e-6)
    assert torch.equal(model.get_model_object("model_sampling").timestep(sigmas[:-1]), respaced.timesteps.flip(0))


def test_sigmas_of_impossible_steps(pack, run_node, load):
    with pytest.raises(pack("realportrait_core.errors").InputError, match="1001 sampling steps"):
        run_node("RealPortraitSigmas", model=load(), steps=1001)


# ---- the sampler ----


@pytest.mark.parametrize("known", [None, KNOWN], ids=["all noised", "first and last known"])
@pytest.mark.parametrize("prediction, learned_sigma", [("epsilon", True), ("v", False)])
def test_the_host_samples_as_the_core(pack, load, custom, paper, maps, prediction, learned_sigma, known):
    model = load(prediction=prediction, learned_sigma=learned_sigma)
    found = custom(model, *paper(model, 6), clip(known))
    assert close(found, by_the_core(pack, model, maps, 6, known))
    if known is not None:
        assert torch.equal(found[known], clip(known)["samples"][known])


def test_the_learned_variance_is_the_positives(load, custom, paper):
    """Above cfg 1 the negative is run too; with equal predictions guidance changes nothing: the variance is the positive's."""
    model = load(prediction="epsilon", learned_sigma=True)
    sampler, sigmas = paper(model, 3)
    plain, guided = (custom(model, sampler, sigmas, clip(), cfg) for cfg in (1.0, 2.0))
    assert not close(guided, plain)

    network, seen = model.model.diffusion_model, []
    module = type(network).__mro__[1]
    forward = module.forward

    def without_control(self, z, t, shape, reference, control, conditional=None, strength=1.0):
        seen.append(strength)
        out = forward(self, z, t, shape, reference, None, conditional, strength)
        out[:, :, 4:] = strength  # the positive learned beta_t, the negative beta~_t
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "forward", without_control)
        plain, guided = (custom(model, sampler, sigmas, clip(), cfg) for cfg in (1.0, 2.0))
    assert set(seen) == {0.0, 1.0} and close(guided, plain)


def test_split_sigmas_go_on_where_they_stopped(load, custom, paper):
    """The same levels, so the same steps: noise is left in, and the last step, which draws none, ends on the same frames."""
    model = load()
    sampler, sigmas = paper(model, 5)
    states = []
    whole = custom(model, observed(sampler, states.append), sigmas, clip(KNOWN))
    assert len(states) == 5
    left = custom(model, sampler, sigmas[:5], clip(KNOWN))
    assert close(left[~KNOWN], states[4][~KNOWN] / 0.18215, 1e-6) and torch.equal(left[KNOWN], whole[KNOWN])
    assert close(custom(model, sampler, sigmas[4:], {**clip(KNOWN), "samples": left}, seed=None), whole)


def observed(sampler, observe):
    """The SAMPLER, which calls observe(x) before every step."""
    import comfy.samplers

    def sample(model, x, sigmas, extra_args, callback, disable):
        return sampler.sampler_function(model, x, sigmas, extra_args, lambda step: observe(step["x"].clone()), disable)

    return comfy.samplers.KSAMPLER(sample)


def test_a_seed_is_a_seed(load, custom, paper):
    model = load()
    first = custom(model, *paper(model, 3), clip())
    assert torch.equal(custom(model, *paper(model, 3), clip()), first)
    assert not close(custom(model, *paper(model, 3), clip(), seed=SEED + 1), first, 1e-2)


def test_levels_that_rise_are_refused(pack, load, custom, paper):
    model = load()
    sampler, sigmas = paper(model, 2)
    with pytest.raises(pack("realportrait_core.errors").InputError, match=r"SIGMAS are 0, 0\.01, 157\.4: .* Flip Sigmas"):
        custom(model, sampler, sigmas.flip(0), clip())


# ---- RealPortrait Sampler ----

PAPER_WIDTH = dict(hidden=24, heads=2, depth=7, control_depth=3, motion_channels=6, motion_widths=(8, 8), clip_frames=4)


@pytest.fixture
def vae(host, pack):
    import comfy.sd

    return comfy.sd.VAE(sd=tiny.vae_state(pack))


@pytest.fixture
def animation(pack, maps):
    """A portrait (1, 64, 64, 3) and its motion in 6 frames."""
    mapping = pack("realportrait_core.animation.mapping")
    motion = mapping.PortraitMotion(tiny.maps(pack, 6), maps[1], torch.eye(3, dtype=torch.float64), (64, 64))
    return torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(3)), motion


@pytest.fixture
def sampler_node(run_node, vae, animation):
    """sampler_node(model, steps=0, ...) -> latents of RealPortrait Sampler."""

    def run(model, **changes):
        given = dict(seed=SEED, steps=0, sampler_name="heun", scheduler="karras", strength=1.0) | changes
        portrait, motion = animation
        return run_node("RealPortraitSampler", model=model, vae=vae, portrait=portrait, motion=motion, **given)[0]["samples"]

    return run


@pytest.fixture
def core_render(pack, vae, animation):
    """core_render(model) -> latents of the core's render by its own default."""

    def run(model):
        core = pack("realportrait_core.dit.model").RealPortraitDiT(model.model.model_config.dit)
        core.load_state_dict(model.model.diffusion_model.state_dict())
        z_r = pack("nodes.host.conditioning").encode_portrait(vae, *animation) * 0.18215
        schedule = pack("realportrait_core.diffusion.schedule").linear_schedule()
        return pack("realportrait_core.animation.rendering").render(core, schedule, z_r, animation[1], seed=SEED) / 0.18215

    return run


def test_papers_layout_takes_50_steps_of_iddpm_by_default(pack, load, sampler_node, core_render):
    """PAPER but for its sizes, over two clips, by the node and by the core: whatever sampler and scheduler the menus show."""
    paper = vars(pack("realportrait_core.config").PAPER.dit)
    model, steps = load(**(paper | PAPER_WIDTH)), []
    model.model.diffusion_model.final_layer.register_forward_hook(lambda *_: steps.append(1))
    by_the_node = sampler_node(model)
    assert len(steps) == 2 * 50
    assert close(by_the_node, core_render(model), 1e-3)


@pytest.mark.parametrize(
    "weights, usual",
    [
        (dict(prediction="epsilon"), dict(steps=50, sampler_name="euler", scheduler="normal")),
        (dict(prediction="v"), dict(steps=10, sampler_name="euler", scheduler="normal")),
        (dict(distilled_steps=3), dict(steps=3, sampler_name="euler", scheduler="sgm_uniform")),
    ],
    ids=["no learned variance", "v", "distilled"],
)
def test_other_weights_take_ddim_by_default(load, sampler_node, core_render, weights, usual):
    model = load(**weights)
    found = sampler_node(model)
    assert torch.equal(found, sampler_node(model, **usual))
    # The host's scheduler lies between whole timesteps.
    assert close(found, core_render(model), 0.05)


def test_steps_that_are_set_are_taken(load, sampler_node):
    """The menus count as soon as there is a number of steps."""
    model, steps = load(prediction="epsilon", learned_sigma=True), []
    model.model.diffusion_model.final_layer.register_forward_hook(lambda *_: steps.append(1))
    sampler_node(model, steps=3, sampler_name="euler")
    assert len(steps) == 3
