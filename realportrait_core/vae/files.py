"""A VAE file of either kind, told apart by its keys: TinyVAE or TAESD, or the SD1.5 VAE in LDM's or diffusers' names.

The SD1.5 VAE comes alone or inside a whole Stable Diffusion 1.5 checkpoint (first_stage_model.*), as float32, fp16 or bf16.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import listed, load_strictly, read_header, read_safetensors, sniff, wrong_role
from ..errors import WeightsError
from .kl import GROUPS, MULTIPLES, AutoencoderKL
from .latent import LATENT_CHANNELS
from .tiny import TinyVAE, load_tiny_vae

VAE = TinyVAE | AutoencoderKL

CHECKPOINT_PREFIX = "first_stage_model."  # of the VAE in a whole checkpoint
SDXL_PREFIX = "conditioner.embedders."  # only in a checkpoint of SDXL, whose VAE has the same layout and another latent space
# Part of a name in diffusers' files -> in LDM's, in this order.
LDM_NAMES = (
    (".mid_block.resnets.0.", ".mid.block_1."),
    (".mid_block.resnets.1.", ".mid.block_2."),
    (".mid_block.attentions.0.", ".mid.attn_1."),
    (".down_blocks.", ".down."),
    (".up_blocks.", ".up."),
    (".resnets.", ".block."),
    (".downsamplers.0.", ".downsample."),
    (".upsamplers.0.", ".upsample."),
    (".conv_shortcut.", ".nin_shortcut."),
    (".conv_norm_out.", ".norm_out."),
    (".group_norm.", ".norm."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".proj_out."),
    (".query.", ".q."),  # these four: files of before diffusers 0.15
    (".key.", ".k."),
    (".value.", ".v."),
    (".proj_attn.", ".proj_out."),
)


def load_vae(path: str | Path) -> VAE:
    """The VAE of one .safetensors file, fp32. WeightsError where it is of neither kind, of another latent space, or damaged."""
    role = sniff(read_header(path).shapes)
    if role == "vae":
        return load_tiny_vae(path)
    if role in ("sd_vae", "sd_checkpoint"):
        return load_autoencoder_kl(path)
    raise wrong_role(path, role, "sd_vae")


def load_autoencoder_kl(path: str | Path) -> AutoencoderKL:
    """The SD1.5 VAE of a file or of a whole checkpoint, fp32. WeightsError where it does not fit."""
    names = read_header(path).shapes
    if any(name.startswith(SDXL_PREFIX) for name in names):
        raise WeightsError(
            f"{path} is a checkpoint of SDXL, whose latents differ from those of Stable Diffusion 1.5. Give a VAE of 1.5."
        )
    inside = sniff(names) == "sd_checkpoint" or any(name.startswith(CHECKPOINT_PREFIX) for name in names)
    prefix = CHECKPOINT_PREFIX if inside else ""
    tensors, _ = read_safetensors(path, prefix)
    state = ldm_state({name.removeprefix(prefix): value for name, value in tensors.items()})
    try:
        with torch.device("meta"):
            vae = AutoencoderKL(width_of(state))
        load_strictly(vae, {name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    except WeightsError as error:
        raise WeightsError(f"{path} is not a whole VAE of Stable Diffusion 1.5: {error}") from error
    return vae.eval()


def ldm_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of encoder, decoder and the two convolutions between them in LDM's names and shapes, from either layout.

    diffusers counts the decoder's levels from the smallest picture on, LDM from the largest; of the attention's layers diffusers
    has matrices (C, C) where LDM has convolutions (C, C, 1, 1).
    """
    renamed = {}
    for name, value in state.items():
        if not name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")):
            continue  # of a training: the discriminator, averages
        name = re.sub(r"\.up_blocks\.(\d)\.", lambda found: f".up_blocks.{len(MULTIPLES) - 1 - int(found[1])}.", name)
        for diffusers, ldm in LDM_NAMES:
            name = name.replace(diffusers, ldm)
        renamed[name] = value[..., None, None] if ".attn_1." in name and value.ndim == 2 else value
    return renamed


def width_of(state: dict[str, Tensor]) -> int:
    """Channels at the picture's size. WeightsError where the latent has not SD1.5's 4 channels, or the width is not known."""
    first, last = state.get("encoder.conv_in.weight"), state.get("decoder.conv_in.weight")
    if first is None or last is None:
        names = ("encoder.conv_in.weight", "decoder.conv_in.weight")
        raise WeightsError(f"{listed(name for name in names if name not in state)} is missing.")
    if first.ndim != 4 or last.ndim != 4 or last.shape[1] != LATENT_CHANNELS:
        raise WeightsError(
            f"its decoder takes latents of shape (B, C, ...) with weights {tuple(last.shape)}, and SD1.5's latents have "
            f"{LATENT_CHANNELS} channels. SD3, Flux and video models have other latents."
        )
    if not len(first) or len(first) % GROUPS:
        raise WeightsError(f"its first convolution has {len(first)} channels, no multiple of {GROUPS}.")
    return len(first)
