"""The frozen encoders of a training step: F and the VAE's encoder, on what samples keep as pictures.

A sample keeps the face crop of every frame that can be the portrait, since f_r of PAPER takes 4.2 MB a frame, and the photograph
of which a step draws a crop. Everything else is computed once, when samples are prepared.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..vae import VAE, AutoencoderKL
from ..vid2vid.appearance import AppearanceExtractor

AT_ONCE = 4  # pictures that go through an encoder together

Row = dict[str, torch.Tensor]  # what one portrait contributes to a batch, by the names of batch.Batch


@dataclass(frozen=True)
class Encoders:
    """Frozen networks on one device; vae: None where no photograph is drawn."""

    appearance: AppearanceExtractor  # F
    vae: VAE | None = None
    precision: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        return next(self.appearance.parameters()).device

    def features(self, faces: torch.Tensor) -> torch.Tensor:
        """Face crops (B, 3, size, size) uint8 -> f_r (B, C, D, h, w) float32."""
        return self._run(self.appearance, faces)

    def latents(self, pictures: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Pictures (B, 3, S, S) uint8 -> scaled latents (B, 4, h, w) float32: with noise of the same shape a draw from the VAE's
        posterior, else its mean."""
        if noise is None or not isinstance(self.vae, AutoencoderKL):
            return self._run(self.vae.encode, pictures)

        def moments(some: torch.Tensor) -> torch.Tensor:
            posterior = self.vae.posterior(some)
            return torch.cat([posterior.mean, posterior.deviation], 1)

        mean, deviation = self._run(moments, pictures).chunk(2, dim=1)
        return mean + deviation * noise.to(mean)

    @torch.no_grad()
    def _run(self, network: Callable[[torch.Tensor], torch.Tensor], pictures: torch.Tensor) -> torch.Tensor:
        device = self.device
        with torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32):
            return torch.cat([network(some.to(device).float() / 255).float() for some in pictures.split(AT_ONCE)])


def encode_rows(rows: list[Row], encoders: Encoders | None) -> list[Row]:
    """The rows with f_r of their `portrait_face`, and z of their `crops`. InputError where an encoder for them is missing."""
    faces = [row["portrait_face"] for row in rows if "portrait_face" in row]
    crops = [row["crops"] for row in rows if "crops" in row]
    if not faces and not crops:
        return rows
    if encoders is None or (crops and encoders.vae is None):
        raise InputError(
            "The samples keep pictures, which a step encodes: it needs the Face Vid2vid, and for photographs the VAE, that they "
            "were made with (--vid2vid, --vae)."
        )
    features = iter(encoders.features(torch.stack(faces)) if faces else ())
    noise = torch.cat([row["crop_noise"] for row in rows if "crops" in row]) if crops else None
    latents = iter(())
    if crops:
        drawn = encoders.latents(torch.cat(crops), noise if noise.numel() else None)
        latents = iter(drawn.split([len(some) for some in crops]))
    encoded = []
    for row in rows:
        kept = {name: value for name, value in row.items() if name not in ("portrait_face", "crops", "crop_noise")}
        if "portrait_face" in row:
            kept["f_r"] = next(features)
        if "crops" in row:
            kept["z"] = next(latents)[:, None]  # (N, 1, 4, h, w)
        encoded.append(kept)
    return encoded
