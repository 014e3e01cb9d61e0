"""A VAE of Stable Diffusion 1.5 through the host's own loader, and ours beside it: a file with its keys and sizes, filled at
random."""

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

SD_VAE = dict(
    double_z=True,
    z_channels=4,
    resolution=256,
    in_channels=3,
    out_ch=3,
    ch=128,
    ch_mult=[1, 2, 4, 4],
    num_res_blocks=2,
    attn_resolutions=[],
    dropout=0.0,
)
PARAMETERS = 83_653_863  # of the published one
NAME = "sd15.safetensors"


@pytest.fixture(scope="module")
def file(host):
    import folder_paths
    from comfy.ldm.models.autoencoder import AutoencoderKL

    generator = torch.Generator().manual_seed(0)

    def filled(key: str, shape: torch.Size) -> torch.Tensor:
        if len(shape) == 1:
            return torch.randn(shape, generator=generator) * 0.1 + key.endswith("weight")
        return torch.randn(shape, generator=generator) * shape[1:].numel() ** -0.5

    with torch.device("meta"):
        shapes = {key: value.shape for key, value in AutoencoderKL(ddconfig=SD_VAE, embed_dim=4).state_dict().items()}
    assert sum(shape.numel() for shape in shapes.values()) == PARAMETERS
    path = Path(folder_paths.get_folder_paths("vae")[0]) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: filled(key, shape).half() for key, shape in shapes.items()}, path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def vae(host, file):
    return host.NODE_CLASS_MAPPINGS["VAELoader"]().load_vae(NAME)[0]


@pytest.fixture
def motion(pack):
    return pack("realportrait_core.animation.mapping").PortraitMotion(
        tiny.maps(pack, 4), tiny.maps(pack, 1), torch.eye(3, dtype=torch.float64), (64, 64)
    )


@pytest.fixture
def portrait():
    return torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(3))


def test_the_reference_is_the_mean_of_the_posterior(pack, vae, portrait, motion):
    """Nothing is drawn: K, V of the portrait are the same in every run."""
    encode = pack("nodes.host.conditioning").encode_portrait
    found = encode(vae, portrait, motion)
    network = vae.first_stage_model
    moments = network.quant_conv(network.encoder(portrait.movedim(-1, 1).to(vae.vae_dtype) * 2 - 1))
    mean, log_variance = moments.float().chunk(2, dim=1)
    assert (found - mean).abs().max() < 1e-4 * mean.abs().max() and torch.equal(found, encode(vae, portrait, motion))
    assert (0.5 * log_variance).exp().min() > 0.1  # a drawn one would be another


def test_it_animates(pack, host, run_node, vae, portrait, motion, tmp_path):
    model = pack("nodes.host.model").load(tiny.dit_file(pack, tmp_path / "dit.safetensors"), "default")
    (latent,) = run_node(
        "RealPortraitSampler",
        model=model,
        vae=vae,
        portrait=portrait,
        motion=motion,
        seed=0,
        steps=1,
        sampler_name="euler",
        scheduler="normal",
        strength=1.0,
    )
    (frames,) = host.NODE_CLASS_MAPPINGS["VAEDecode"]().decode(vae, latent)
    assert frames.shape == (4, 64, 64, 3) and torch.isfinite(frames).all() and frames.std() > 0


def test_in_a_slot_for_other_weights_it_is_named(pack, file):
    with pytest.raises(pack("realportrait_core.errors").WeightsError, match="looks like a Stable Diffusion VAE; this slot needs"):
        pack("nodes.host.model").load(file, "default")


# Ours


def diffusers_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """LDM's names and shapes as diffusers publishes the same weights."""
    parts = {
        "mid.block_1": "mid_block.resnets.0",
        "mid.block_2": "mid_block.resnets.1",
        "mid.attn_1.norm": "mid_block.attentions.0.group_norm",
        "mid.attn_1.proj_out": "mid_block.attentions.0.to_out.0",
        "mid.attn_1.": "mid_block.attentions.0.to_",
        "nin_shortcut": "conv_shortcut",
        "norm_out": "conv_norm_out",
    }
    found = {}
    for name, value in state.items():
        value = value[:, :, 0, 0] if "attn_1" in name and value.ndim == 4 else value
        for level in range(4):
            for part, old, new in (("down", level, level), ("up", level, 3 - level)):
                name = name.replace(f".{part}.{old}.block.", f".{part}_blocks.{new}.resnets.")
                name = name.replace(f".{part}.{old}.{part}sample.", f".{part}_blocks.{new}.{part}samplers.0.")
        for ldm, diffusers in parts.items():
            name = name.replace(ldm, diffusers)
        found[name] = value
    return found


@pytest.fixture(scope="module")
def narrow(host):
    """The host's own AutoencoderKL at a quarter of the width, filled at random."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    torch.manual_seed(0)
    with torch.inference_mode(False):
        network = AutoencoderKL(ddconfig=SD_VAE | {"ch": 32}, embed_dim=4).eval().requires_grad_(False)
        for name, value in network.named_parameters():
            value.copy_(filled_at_random(name, value.shape))
    return network


def filled_at_random(name: str, shape: torch.Size) -> torch.Tensor:
    if len(shape) == 1:
        return torch.randn(shape) * 0.1 + name.endswith("weight")
    return torch.randn(shape) * shape[1:].numel() ** -0.5


@pytest.mark.parametrize("layout", ["ldm", "checkpoint", "diffusers"])
def test_ours_computes_what_the_hosts_does(pack, narrow, layout, tmp_path):
    from comfy.diffusers_convert import convert_vae_state_dict

    state = dict(narrow.state_dict())
    if layout == "diffusers":
        known, state = state, diffusers_layout(state)
        back = convert_vae_state_dict(state)  # the host knows these names too
        assert back.keys() == known.keys() and all(torch.equal(back[name], known[name]) for name in known)
    elif layout == "checkpoint":
        state = {f"first_stage_model.{name}": value for name, value in state.items()}
        state |= {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "vae.safetensors")
    ours = pack("realportrait_core.vae").load_vae(tmp_path / "vae.safetensors")
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    moments = narrow.quant_conv(narrow.encoder(images * 2 - 1))
    mean, log_variance = moments.chunk(2, dim=1)
    found = ours.posterior(images)
    decoded = ours.decoder(ours.post_quant_conv(found.mean / 0.18215))
    pairs = ((found.mean, 0.18215 * mean), (found.deviation, 0.18215 * (0.5 * log_variance).exp()), (decoded, narrow.decode(mean)))
    for value, expected in pairs:
        assert (value - expected).abs().max() < 1e-4 * expected.abs().max()


def test_ours_is_the_hosts_vae_at_the_published_size(pack, vae, file, portrait):
    """A picture in, a picture out: the host's nodes and ours from one fp16 file."""
    ours = pack("realportrait_core.vae").load_vae(file)
    images = portrait.movedim(-1, 1)
    latents = ours.encode(images)
    expected = vae.encode(portrait) * 0.18215
    assert (latents - expected).abs().max() < 1e-4 * expected.abs().max()
    pictures, expected = ours.decode(latents).movedim(1, -1), vae.decode(latents / 0.18215)
    assert (pictures - expected).abs().max() < 1e-4
