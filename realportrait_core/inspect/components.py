"""Feature maps in false colours: their first three principal components."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

MOST_FRAMES = 64  # evenly spaced, from which the components are computed


@dataclass(frozen=True)
class Components:
    """The first three principal components of f over a clip, as red, green and blue."""

    mean: torch.Tensor  # (C,)
    axes: torch.Tensor  # (C, 3)
    deviation: torch.Tensor  # (3,) standard deviation along each axis
    share: float  # of f's variance that they explain

    def colors(self, f: torch.Tensor) -> torch.Tensor:
        """(L, C, h, w) -> (L, 3, h, w) in [0, 1]: grey at the mean, saturated at two deviations."""
        along = torch.einsum("lchw,cn->lnhw", f.float() - self.mean[:, None, None], self.axes)
        return (0.5 + along / (4 * self.deviation[:, None, None])).clamp(0, 1)


def components(f: torch.Tensor) -> Components:
    """Principal components of f (L, C, h, w), from at most MOST_FRAMES of its frames; f of fewer than 3 channels is padded."""
    count = min(len(f), MOST_FRAMES)
    picked = torch.linspace(0, len(f) - 1, count).round().long()
    channels = f.shape[1]
    mean = torch.stack([f[i].double().mean((1, 2)) for i in picked]).mean(0)  # (C,)
    covariance = torch.zeros(channels, channels, dtype=torch.float64)
    for i in picked:
        values = f[i].double().flatten(1) - mean[:, None]
        covariance += values @ values.mT / (values.shape[1] * count)
    variance, axes = torch.linalg.eigh(covariance)  # ascending
    if channels < 3:
        axes, variance = F.pad(axes, (3 - channels, 0)), F.pad(variance, (3 - channels, 0))
    axes, along = axes[:, -3:].flip(1), variance[-3:].flip(0).clamp(min=0)
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # eigh does not define the signs
    share = float(along.sum() / variance.clamp(min=0).sum().clamp(min=1e-12))
    return Components(mean.float(), (axes * signs).float(), along.sqrt().clamp(min=1e-6).float(), share)
