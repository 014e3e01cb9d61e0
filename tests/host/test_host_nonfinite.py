"""NaN in the host's sampling: at its step, once more in a wider dtype, and the user's MODEL as it was."""

import pytest
import tiny
import torch
from refusal import refused
from test_model import clip, sample  # noqa: F401

FRAMES = 6


@pytest.fixture
def load(pack, tmp_path):
    """load(change): a tiny MODEL after change(state) of its weights."""

    def make(change=lambda state: None, weight_dtype="fp16"):
        checkpoint = pack("realportrait_core.checkpoint")
        path = tiny.dit_file(pack, tmp_path / "tiny.safetensors")
        state, metadata = checkpoint.read_safetensors(path)
        change(state)
        checkpoint.save(path, state, metadata)
        return pack("nodes.host.model").load(path, weight_dtype)

    return make


def too_large_for_fp16(state):
    """The first MLP's activations become some hundred thousand, and shrink again behind it."""
    for key, factor in (("fc1.weight", 2.0**14), ("fc1.bias", 2.0**14), ("fc2.weight", 2.0**-14)):
        state[f"blocks.0.mlp.{key}"] *= factor


def broken(model):
    """With a NaN among its weights in memory; in a file it would be refused."""
    model.model.diffusion_model.blocks[1].mlp.fc1.weight[3, 5] = torch.nan
    return model


def in_fp16(model):
    """As on a GPU: a CPU's host would cast fp16 weights to fp32. By the host's own node ModelComputeDtype."""
    from comfy_extras.nodes_model_advanced import ModelComputeDtype

    return ModelComputeDtype().patch(model, "fp16")[0]


@pytest.fixture
def sample_clip(pack):
    """Two clips by the loop of our node: frames 0 to 5, and 5 to 8 after them."""
    module, still = pack("nodes.sample"), tiny.maps(pack, 1, seed=5)

    def run(model, steps=3, sampler_name="euler", scheduler="normal", seed=7, strength=1.0, guidance=1.5, maps=None):
        motion = pack("realportrait_core.animation.mapping").PortraitMotion(
            maps or tiny.maps(pack, 9), still, torch.eye(3, dtype=torch.float64), (64, 64)
        )
        used = module.Sampling(steps, sampler_name, scheduler)
        return module.sample_clips(model, tiny.latent(1), motion, used, seed=seed, strength=strength, guidance=guidance)

    return run


def weights_of(model):
    return {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}


def test_what_overflows_in_fp16_is_sampled_in_fp32(pack, load, sample_clip, caplog):
    whole = load(too_large_for_fp16)
    wanted = sample_clip(whole)  # on a CPU the host itself computes fp16 weights in fp32
    caplog.clear()
    half = in_fp16(load(too_large_for_fp16))
    before = weights_of(half)
    found = sample_clip(half)
    said = [record.getMessage() for record in caplog.records if "became NaN" in record.getMessage()]
    assert said == [
        "Frames 0 to 8 became NaN or infinite at step 1 of 3, in 16 of 16 frames of the clip, in fp16: sampled again in fp32."
    ]
    assert torch.equal(found, wanted)
    after = weights_of(half)
    assert all(after[key].dtype == value.dtype and torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_ancestral", "iddpm", "uni_pc", "heun"])
def test_each_sampler_is_watched(pack, load, sample_clip, sampler):
    scheduler = "iddpm" if sampler == "iddpm" else "normal"
    with refused(pack, "Frames 0 to 8 became NaN or infinite at step [12] of 3.*in fp32. No wider dtype", "NonFiniteError"):
        sample_clip(broken(load(weight_dtype="fp32")), sampler_name=sampler, scheduler=scheduler)


def test_what_cannot_be_mended_is_refused_after_one_retry(pack, load, sample_clip):
    with refused(pack, "at step 1 of 3, .*, in fp16; then at step 1 of 3, .*, in fp32. No wider", "NonFiniteError"):
        sample_clip(in_fp16(broken(load())))


def test_the_users_model_is_as_it_was(pack, load, sample_clip, clip):  # noqa: F811
    """fp16 frames of a MODEL that went through a retry in fp32, against one that did not: bit for bit."""
    fresh, used = (in_fp16(load()) for _ in range(2))
    wanted = sample(fresh, *clip[:2])
    assert torch.equal(sample(used, *clip[:2]), wanted)
    module = pack("nodes.host.precision")
    wide = module.in_dtype(used, torch.float32)
    different = sample(wide, *clip[:2])
    assert not torch.equal(different, wanted), "it really computed in fp32"
    assert torch.allclose(different, wanted, atol=0.02 * float(wanted.abs().max()))
    for _ in range(2):
        assert torch.equal(sample(used, *clip[:2]), wanted)
    assert module.compute_dtype(used) == torch.float16 and module.compute_dtype(wide) == torch.float32
    del wide
    assert torch.equal(sample(used, *clip[:2]), wanted)


def test_stock_samplers_end_in_a_sentence(pack, load, clip):  # noqa: F811
    with refused(pack, "Sampling became NaN or infinite at step 1 of 3, in 6 of 6 frames.*weight_dtype fp32", "NonFiniteError"):
        sample(broken(load(weight_dtype="fp32")), *clip[:2])


def test_a_nan_portrait_is_refused_at_the_first_step(pack, load, clip):  # noqa: F811
    positive, negative, _ = clip
    positive = [[positive[0][0], {**positive[0][1], "rp_reference": tiny.latent(1) * torch.nan}]]
    with refused(pack, "at step 1 of 3", "NonFiniteError"):
        sample(load(weight_dtype="fp32"), positive, negative)
