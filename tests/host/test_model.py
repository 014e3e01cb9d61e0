"""RealPortrait as the host's MODEL: timesteps per frame, conditional frames, cfg, saving, refusals.

The network is tiny and random: what is tested is what the host and the network say to each other.
"""

from pathlib import Path

import pytest
import tiny
import torch
from refusal import refused

FRAMES = 6


@pytest.fixture
def model(pack, tmp_path):
    return pack("nodes.host.model").load(tiny.dit_file(pack, tmp_path / "tiny.safetensors"), "default")


@pytest.fixture
def clip(pack):
    """(positive, negative, maps) of FRAMES frames."""
    maps = tiny.maps(pack, FRAMES)
    conditioning = pack("nodes.host.conditioning").conditioning
    return (*conditioning(tiny.latent(1), maps, tiny.maps(pack, 1, seed=5), 1.0), maps)


def sample(model, positive, negative, *, latent=None, mask=None, cfg=1.0, steps=3, sampler="euler", scheduler="normal", seed=7):
    import comfy.sample

    latent = torch.zeros(FRAMES, 4, 8, 8) if latent is None else latent
    noise = comfy.sample.prepare_noise(latent, seed)
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, scheduler, positive, negative, latent, noise_mask=mask, disable_pbar=True, seed=seed
    )


def spy(model, calls):
    """Records what the network was called with, by the host's own wrapper."""
    import comfy.patcher_extension as extension

    model = model.clone()

    def wrapper(executor, x, timestep, *args, **kwargs):
        calls.append((x.clone(), timestep.clone(), kwargs["rp_clip"]))
        return executor(x, timestep, *args, **kwargs)

    model.add_wrapper(extension.WrappersMP.DIFFUSION_MODEL, wrapper)
    return model


def known_frames(which):
    latent = torch.zeros(FRAMES, 4, 8, 8)
    latent[which] = tiny.latent(len(which), seed=9)
    mask = torch.ones(FRAMES, 1, 8, 8)
    mask[which] = 0
    return latent, mask


def test_schedule_is_the_papers(model):
    """Linear betas from 1e-4 to 0.02: the host calls that schedule sqrt_linear."""
    sampling = model.get_model_object("model_sampling")
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas = torch.cumprod(1 - betas, 0)
    expected = ((1 - alphas) / alphas).sqrt()
    assert torch.allclose(sampling.sigmas.double(), expected, rtol=1e-4)
    assert float(sampling.sigma_max) == pytest.approx(157.4, abs=0.1)


@pytest.mark.parametrize("prediction, kind", [("epsilon", "EPS"), ("v", "V_PREDICTION")])
def test_prediction_follows_the_weights(pack, tmp_path, clip, prediction, kind):
    """One host step from t = 999 gives x0 by the formula of the weights' own parameterisation."""
    path = tiny.dit_file(pack, tmp_path / "tiny.safetensors", prediction=prediction)
    model = pack("nodes.host.model").load(path, "default")
    assert model.model.model_type.name == kind
    calls = []
    positive, negative, _ = clip
    found = sample(spy(model, calls), positive, negative, steps=1)
    x, t, asked = calls[0]
    network = model.model.diffusion_model
    out = network(x, t, rp_clip=asked)
    sigma = float(model.get_model_object("model_sampling").sigma_max)
    alpha, noise = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    x0 = (x - noise * out) / alpha if prediction == "epsilon" else alpha * x - noise * out
    assert torch.allclose(found, x0 / 0.18215, rtol=1e-3, atol=1e-3 * float(x0.abs().max()) / 0.18215)


def test_the_host_reaches_the_core_unchanged(pack, model, clip):
    """What the host computes is the core's forward with the same reference, control and timesteps, in fp32."""
    calls = []
    positive, negative, maps = clip
    sample(spy(model, calls), positive, negative, steps=1)
    x, t, asked = calls[0]
    core = pack("realportrait_core.dit.model").RealPortraitDiT(model.model.model_config.dit)
    core.load_state_dict(model.model.diffusion_model.state_dict())
    reference = core.encode_reference(tiny.latent(1) * 0.18215, asked.shape, tiny.maps(pack, 1, seed=5).to(dtype=torch.float32))
    control = core.encode_motion(maps.to(dtype=torch.float32), reference)
    expected = core(x[None], t[None], asked.shape, reference, control, None, 1.0)[0]
    assert torch.allclose(model.model.diffusion_model(x, t, rp_clip=asked), expected, atol=1e-5 * float(expected.abs().max()))
    assert (asked.shape.height, asked.shape.width, asked.shape.frames, asked.shape.fps) == (64, 64, 16, 12.5)


def test_conditional_frames_are_clean_and_come_back_untouched(model, clip):
    positive, negative, _ = clip
    latent, mask = known_frames([0, 1])
    calls = []
    found = sample(spy(model, calls), positive, negative, latent=latent, mask=mask)
    assert len(calls) == 3
    for _, _, asked in calls:
        assert asked.conditional.tolist() == [True, True, False, False, False, False]
        assert torch.equal(asked.known[:2], model.model.process_latent_in(latent[:2]))
    assert torch.equal(found[:2], latent[:2])
    assert not torch.allclose(found[2:], latent[2:])


def test_the_network_receives_t_per_frame(model, clip, monkeypatch):
    """t = 0 and clean latents on conditional frames, the sampler's t and noise on the others."""
    positive, negative, _ = clip
    latent, mask = known_frames([0, 5])
    base = type(model.model.diffusion_model).__mro__[1]
    seen = []
    forward = base.forward

    def recorded(self, z, t, shape, reference, control, conditional, strength):
        seen.append((z.clone(), t.masked_fill(conditional, 0)))
        return forward(self, z, t, shape, reference, control, conditional, strength)

    monkeypatch.setattr(base, "forward", recorded)
    sample(model, positive, negative, latent=latent, mask=mask, steps=2)
    assert seen[0][1].tolist() == [[0, 999, 999, 999, 999, 0]]
    for z, _ in seen:
        assert torch.equal(z[0, [0, 5]], model.model.process_latent_in(latent[[0, 5]]))


def test_known_frames_matter_to_the_others(model, clip):
    positive, negative, _ = clip
    latent, mask = known_frames([0])
    one = sample(model, positive, negative, latent=latent, mask=mask)
    other = sample(model, positive, negative, latent=-latent, mask=mask)
    assert (one[1:] - other[1:]).abs().max() > 1e-2


def test_a_partial_mask_is_ordinary_inpainting(model, clip):
    """Only a frame that is masked everywhere is conditional."""
    positive, negative, _ = clip
    latent, mask = known_frames([0])
    mask[0, :, :, 4:] = 1
    calls = []
    found = sample(spy(model, calls), positive, negative, latent=latent, mask=mask)
    assert calls[0][2].conditional is None
    assert torch.allclose(found[0, :, :, :3], latent[0, :, :, :3], rtol=1e-5, atol=1e-5)


def test_same_seed_same_frames(model, clip):
    positive, negative, _ = clip
    assert torch.equal(sample(model, positive, negative), sample(model, positive, negative))
    assert not torch.equal(sample(model, positive, negative), sample(model, positive, negative, seed=8))


def test_cfg_runs_the_unmoved_portrait(model, clip):
    """The paper has no guidance: at cfg 1 the host skips the negative; above, the negative is the portrait without control."""
    positive, negative, _ = clip
    calls = []
    spied = spy(model, calls)
    plain = sample(spied, positive, negative, cfg=1.0, steps=1)
    assert [asked.strength for _, _, asked in calls] == [1.0]
    calls.clear()
    guided = sample(spied, positive, negative, cfg=3.0, steps=1)
    assert sorted(asked.strength for _, _, asked in calls) == [0.0, 1.0]
    still = sample(model, negative, negative, steps=1)
    assert torch.allclose(guided, still + 3 * (plain - still), rtol=1e-3, atol=1e-3 * float(guided.abs().max()))


def test_strength_zero_is_the_backbone_alone(pack, model, clip):
    """Without control, motion has no effect."""
    positive, negative, _ = clip
    other = tiny.maps(pack, FRAMES, seed=8)
    _, still = pack("nodes.host.conditioning").conditioning(tiny.latent(1), other, tiny.maps(pack, 1, seed=5), 1.0)
    assert torch.equal(sample(model, still, still), sample(model, negative, negative))
    assert not torch.equal(sample(model, positive, negative), sample(model, negative, negative))


# ---- the portrait's K,V ----


def test_the_portrait_is_encoded_once(model, clip, monkeypatch):
    """Over steps, over clips and for the negative; again after a change of portrait or weights, and let go with the weights."""
    positive, negative, _ = clip
    network = model.model.diffusion_model
    encode, encoded = network.encode_reference, []
    monkeypatch.setattr(network, "encode_reference", lambda *args: encoded.append(1) or encode(*args))
    sample(model, positive, negative, cfg=2.0)
    sample(model, positive, negative, seed=3)
    assert len(encoded) == 1

    other = [[positive[0][0], {**positive[0][1], "rp_reference": tiny.latent(1, seed=11)}]]
    first, second = sample(model, other, negative), sample(model, positive, negative)
    assert len(encoded) == 2 and not torch.equal(first, second)

    patched = model.clone()
    key = "diffusion_model.blocks.0.attn.qkv.weight"
    patched.add_patches({key: (torch.full((144, 48), 0.2),)})
    changed = sample(patched, positive, negative)
    assert len(encoded) == 3 and not torch.equal(changed, second)
    assert torch.equal(sample(model, positive, negative), second)

    assert len(network.references) <= 2
    model.detach()
    assert not network.references


def test_control_tokens_are_made_once_a_clip(model, clip, monkeypatch):
    positive, negative, _ = clip
    network = model.model.diffusion_model
    encode, encoded = network.encode_motion, []
    monkeypatch.setattr(network, "encode_motion", lambda *args: encoded.append(1) or encode(*args))
    sample(model, positive, negative, steps=4)
    assert len(encoded) == 1


# ---- caching ----


def cached(pack, clip, **caching):
    """The clip's conditioning with caching."""
    chosen = pack("realportrait_core.dit.cache").Caching(**caching)
    return [[[prompt, {**said, "rp_caching": chosen}]] for ((prompt, said),) in clip[:2]]


def runs_of(blocks) -> list:
    """Grows by one whenever the last of the blocks runs."""
    runs = []
    blocks[-1].register_forward_hook(lambda *given: runs.append(1))
    return runs


def test_caching_of_nothing_changes_nothing(pack, model, clip):
    latent, mask = known_frames([0])
    given = dict(latent=latent, mask=mask, cfg=2.0)
    plain = sample(model, *clip[:2], **given)
    assert torch.equal(sample(model, *cached(pack, clip, control_every=1, threshold=0.0), **given), plain)


def test_the_hosts_samplers_take_over_from_step_to_step(pack, model, clip):
    """Also with known frames and for both CONDITIONINGs of cfg, each by itself; a run starts with an empty cache."""
    network = model.model.diffusion_model
    backbone, control = runs_of(network.blocks), runs_of(network.controlnet)
    latent, mask = known_frames([0])
    given = dict(latent=latent, mask=mask, cfg=2.0, steps=4)
    plain = sample(model, *clip[:2], **given)
    assert (len(backbone), len(control)) == (8, 4)  # the negative has no control
    backbone.clear(), control.clear()
    conditioning = cached(pack, clip, control_every=2)
    found = sample(model, *conditioning, **given)
    assert (len(backbone), len(control)) == (8, 2)
    assert torch.equal(found[0], latent[0]) and torch.isfinite(found).all() and not torch.equal(found, plain)
    assert torch.equal(sample(model, *conditioning, **given), found) and len(control) == 4
    backbone.clear()
    loose = sample(model, *cached(pack, clip, threshold=10.0), **given)
    assert len(backbone) == 2 and torch.equal(loose[0], latent[0]) and torch.isfinite(loose).all()
    assert torch.equal(sample(model, *clip[:2], **given), plain)


# ---- files ----


def test_saved_by_the_host_and_loaded_again(pack, model, clip):
    """ModelSave drops metadata and adds a prefix; what it writes is still a RealPortrait file."""
    import folder_paths
    from comfy_extras.nodes_model_merging import ModelSave

    ModelSave().save(model, "tiny/saved")
    (saved,) = Path(folder_paths.get_output_directory(), "tiny").glob("saved*")
    again = pack("nodes.host.model").load(saved, "default")
    assert again.model.model_config.dit == model.model.model_config.dit
    positive, negative, _ = clip
    found, wanted = sample(again, positive, negative), sample(model, positive, negative)
    assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()))  # the weights lie elsewhere in the file


@pytest.mark.parametrize(
    "weight_dtype, most",
    [("fp32", 1e-5), ("fp16", 2e-3), ("bf16", 2e-2), ("fp8_e4m3fn", 0.2), ("fp8_e4m3fn_fast", 0.2), ("fp8_e5m2", 0.3)],
)
def test_weight_dtypes(pack, tmp_path, model, clip, weight_dtype, most):
    """Each gives the frames of the default, fp32 on a CPU, as nearly as it can."""
    module = pack("nodes.host.model")
    other = module.load(tiny.dit_file(pack, tmp_path / "other.safetensors"), weight_dtype)
    assert other.model.diffusion_model.blocks[0].attn.qkv.weight.dtype == module.WEIGHT_DTYPES[weight_dtype]
    wanted, found = (sample(one, *clip[:2], steps=1) for one in (model, other))
    assert (found - wanted).norm() < most * wanted.norm()


def test_refused_files(pack, tmp_path):
    module = pack("nodes.host.model")
    error = pack("realportrait_core.errors").WeightsError
    checkpoint = pack("realportrait_core.checkpoint")
    good = tiny.dit_file(pack, tmp_path / "good.safetensors")

    whole = good.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(error, match=rf"cut short: {len(whole) // 2} bytes of {len(whole)}"):
        module.load(tmp_path / "cut.safetensors", "default")

    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.safetensors")
    with pytest.raises(error, match="pickled PyTorch file"):
        module.load(tmp_path / "pickle.safetensors", "default")

    checkpoint.save(tmp_path / "vae.safetensors", {"taesd_decoder.1.weight": torch.zeros(1)}, {})
    with pytest.raises(error, match="TAESD autoencoder.*models/vae"):
        module.load(tmp_path / "vae.safetensors", "default")

    state, metadata = checkpoint.read_safetensors(good)
    del state["blocks.1.attn.proj.weight"], state["final_layer.linear.bias"]
    checkpoint.save(tmp_path / "holes.safetensors", state, metadata)
    with pytest.raises(error, match=r"2 of \d+ tensors are missing: blocks\.1\.attn\.proj\.weight, final_layer\.linear\.bias"):
        module.load(tmp_path / "holes.safetensors", "default")


# ---- inputs that do not fit ----


def test_a_prompt_from_clip_is_refused(pack, model, clip):
    positive, negative, _ = clip
    prompt = [[torch.zeros(1, 77, 768), {"pooled_output": torch.zeros(1, 768)}]]
    with refused(pack, "negative CONDITIONING does not come from RealPortrait"):
        sample(model, positive, prompt)
    with refused(pack, "positive CONDITIONING does not come from RealPortrait"):
        sample(model, prompt, negative)


def test_motion_of_another_length_is_refused(pack, model, clip):
    """The host would repeat or cut it silently."""
    positive, negative, _ = clip
    for frames in (1, 5, 12):
        with refused(pack, f"motion of this clip has {FRAMES} frames and the LATENT has {frames}"):
            sample(model, positive, negative, latent=torch.zeros(frames, 4, 8, 8))


def test_other_sizes_are_refused(pack, model, clip):
    positive, negative, _ = clip
    with refused(pack, "motion is for 64x64 px, the LATENT is of 96x64 px"):
        sample(model, positive, negative, latent=torch.zeros(FRAMES, 4, 8, 12))


def test_maps_of_another_vid2vid_are_refused(pack, model):
    maps = tiny.maps(pack, FRAMES, channels=9)
    positive, negative = pack("nodes.host.conditioning").conditioning(tiny.latent(1), maps, tiny.maps(pack, 1), 1.0)
    with refused(pack, "9 channels and this model reads 6"):
        sample(model, positive, negative)


def test_a_model_works_after_an_error(pack, model, clip):
    positive, negative, _ = clip
    before = sample(model, positive, negative)
    with refused(pack, "frames"):
        sample(model, positive, negative, latent=torch.zeros(2, 4, 8, 8))
    assert torch.equal(sample(model, positive, negative), before)
