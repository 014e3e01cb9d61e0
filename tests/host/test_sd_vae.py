"""A VAE of Stable Diffusion 1.5 through the host's own loader: a file with its keys and sizes, filled at random."""

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
