"""Autoencoders of SD1.5's latent space: the SD1.5 VAE itself (kl.py), and TinyVAE, a small one in its place (tiny.py)."""

from .files import VAE, load_autoencoder_kl, load_vae
from .kl import AutoencoderKL, Posterior
from .latent import DOWN, LATENT_CHANNELS, LATENT_SCALE
from .tiny import WIDTHS, TinyVAE, VAEConfig, load_taesd, load_tiny_vae, resized, save_vae

__all__ = [
    "DOWN",
    "LATENT_CHANNELS",
    "LATENT_SCALE",
    "VAE",
    "WIDTHS",
    "AutoencoderKL",
    "Posterior",
    "TinyVAE",
    "VAEConfig",
    "load_autoencoder_kl",
    "load_taesd",
    "load_tiny_vae",
    "load_vae",
    "resized",
    "save_vae",
]
