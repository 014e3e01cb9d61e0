"""The sampler's widgets and the stock samplers' cfg at both ends of their ranges."""

import pytest
import tiny
import torch
from refusal import refused
from test_host_nonfinite import sample_clip  # noqa: F401
from test_model import clip, model, sample  # noqa: F401


@pytest.mark.parametrize("sampler, scheduler", [("euler", "normal"), ("dpmpp_2m", "sgm_uniform"), ("iddpm", "iddpm")])
def test_one_step_and_a_thousand(pack, model, sample_clip, sampler, scheduler):  # noqa: F811
    assert sample_clip(model, steps=1, sampler_name=sampler, scheduler=scheduler).isfinite().all()
    _, sigmas = pack("nodes.host.iddpm").sampler_and_sigmas(model, sampler, scheduler, 1000)
    assert len(sigmas) == 1001 and sigmas.isfinite().all() and (sigmas.diff() < 0).all() and sigmas[-1] == 0


def test_seeds_at_both_ends(model, sample_clip):  # noqa: F811
    found = [sample_clip(model, steps=1, seed=seed) for seed in (0, 2**63, 2**64 - 1)]
    assert all(latents.isfinite().all() for latents in found) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("cfg", [0.0, 1.0, 100.0])
def test_cfg_of_stock_samplers(model, clip, cfg):  # noqa: F811
    positive, negative, _ = clip
    found, still = sample(model, positive, negative, cfg=cfg), sample(model, negative, negative)
    assert found.isfinite().all()
    if cfg == 0:
        assert torch.allclose(found, still, atol=1e-4 * float(still.abs().max())), "0 is the portrait without motion"


def test_strength_0_is_the_portrait_without_motion(pack, model, sample_clip):  # noqa: F811
    """Whatever the motion is."""
    other, given = tiny.maps(pack, 9, seed=8), dict(strength=0.0, guidance=1.0)
    still = sample_clip(model, **given)
    assert still.isfinite().all() and torch.equal(sample_clip(model, **given, maps=other), still)
    moved = [sample_clip(model, guidance=1.0, maps=maps) for maps in (None, other)]
    assert not any(map(torch.equal, moved, (moved[1], still))), "with a strength of 1 the motion is seen"


@pytest.mark.parametrize("guidance", [0.0, -1.0, float("nan"), float("inf")])
def test_guidance_below_1_is_refused(pack, run_node, model, guidance):  # noqa: F811
    given = dict(model=model, vae=None, motion=None, seed=0, steps=1, sampler_name="euler", scheduler="normal", strength=1.0)
    with refused(pack, "it must be finite, 1 .off. or more"):
        run_node("RealPortraitSampler", **given, guidance=guidance)


@pytest.mark.parametrize(
    "name, value", [("seed", -1), ("seed", 2**64), ("steps", -1), ("steps", 1001), ("strength", -0.1), ("strength", 2.1),
                    ("guidance", 0.0), ("guidance", 100.0)]
)  # fmt: skip
def test_the_host_refuses_what_lies_outside(host, name, value):
    """A prompt over the API is checked by the schema's own ends, before anything runs."""
    import asyncio

    import execution

    inputs = dict(seed=0, steps=0, sampler_name="euler", scheduler="normal", strength=1.0, speed="exact", guidance=1.0)
    prompt = {"1": {"class_type": "RealPortraitSampler", "inputs": {**inputs, name: value}}}
    valid, errors, _ = asyncio.run(execution.validate_inputs("id", prompt, "1", {}))
    said = [error for error in errors if error.get("extra_info", {}).get("input_name") == name]
    assert not valid and [error["type"] for error in said][0] in ("value_smaller_than_min", "value_bigger_than_max")


def test_maps_of_nothing(pack):
    with refused(pack, "the motion has 3 frames .0 to 2.: nothing is left"):
        pack("nodes.host.conditioning").part(tiny.maps(pack, 3), 3, 16)
