"""SD1.5's latent space: a picture of H x W is a latent of 4 x H/8 x W/8, whichever autoencoder made it."""

from torch import Tensor

from ..errors import InputError

LATENT_CHANNELS = 4
LATENT_SCALE = 0.18215  # latent of the diffusion model = 0.18215 * latent of the SD1.5 VAE
DOWN = 8  # px of the picture per px of the latent


def check_images(images: Tensor) -> None:
    """InputError where these are not images (B, 3, H, W) with H and W multiples of DOWN."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % DOWN or images.shape[3] % DOWN:
        raise InputError(
            f"The VAE encodes images of shape (B, 3, H, W) with H and W multiples of {DOWN}; "
            f"got {tuple(images.shape)}. Crop or resize the picture first."
        )


def check_latents(latents: Tensor) -> None:
    """InputError where these are not latents (B, 4, h, w)."""
    if latents.ndim != 4 or latents.shape[1] != LATENT_CHANNELS:
        raise InputError(
            f"The VAE decodes latents of shape (B, {LATENT_CHANNELS}, h, w), those of SD1.5; got {tuple(latents.shape)}."
        )
