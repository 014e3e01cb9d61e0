"""Losses that ask a picture to look real, where squared error asks for the mean of all that fit and so for blur.

A patch discriminator with feature matching (Wang et al. 2018, pix2pixHD) and, where its weights are given, a perceptual
distance; both see random crops, sizes and mirror images, so that no fixed filter can be fooled by a pattern. The discriminator
compares pictures with true ones (Jolicoeur-Martineau 2018, the relativistic GAN). Where every pixel has its place, as in a
decoder, with the true one of the same place: what differs is then the detail and not the content, and it learns within tens of
steps. Where the content may lie a little elsewhere, as in an animation, with another one, or place is all that it learns. None
of the terms is ever a measure: what judges the result (realportrait_core.eval) is in no loss.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .precision import autocast

WIDTHS = (64, 128, 256)
SLOPE = 0.2
SCALES = 2  # the discriminator sees the picture and one of half its size
VIEW = (0.55, 1.0)  # size of a view of the perceptual term, of the crop's
NORM_DECAY = 0.95  # of the running means of the gradients' norms
DETAIL_GAIN = 6.0  # of what a blur takes away, which the discriminator sees beside the picture
Perceptual = Callable[[Tensor, Tensor], Tensor]  # two (B, 3, H, W) in -1 .. 1 -> (B,) distances


class PatchDiscriminator(nn.Module):
    """(B, 3, H, W) in -1 .. 1 -> what every layer sees, the last one real or not for each patch."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        channels = (6, *widths)
        layers = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(channels, widths)]
        layers += [nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.Conv2d(widths[-1], 1, 3, padding=1)]
        self.layers = nn.ModuleList(spectral_norm(layer) for layer in layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, seen = torch.cat([x, DETAIL_GAIN * (x - blurred(x))], 1), []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), SLOPE)
            seen.append(x)
        return [*seen, self.layers[-1](x)]


class Discriminator(nn.Module):
    """A patch discriminator for each scale."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, scales: int = SCALES):
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(widths) for _ in range(scales))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        seen = []
        for i, scale in enumerate(self.scales):
            seen.append(scale(x if i == 0 else F.avg_pool2d(x, 2**i)))
        return seen


def blurred(x: Tensor) -> Tensor:
    """(B, C, H, W), twice a mean over 3x3."""
    for _ in range(2):
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return x


def relativistic_loss(worse: list[list[Tensor]], better: list[list[Tensor]]) -> Tensor:
    """Small where each patch of `better` counts as more real than that of `worse`: the discriminator wants it of the true
    pictures, the generator of its own."""
    return sum(F.softplus(a[-1] - b[-1]).mean() for a, b in zip(worse, better)) / len(better)


def feature_distance(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    """Mean difference of the discriminator's features, each layer over its own size in the real picture."""
    distances = [
        (a - b).abs().mean() / b.abs().mean().clamp_min(1e-6)
        for ours, theirs in zip(fake, real)
        for a, b in zip(ours[:-1], theirs[:-1])
    ]
    return torch.stack(distances).mean()


@dataclass
class Balance:
    """Shares of several losses in one gradient (Defossez et al. 2022, EnCodec): each loss's gradient with respect to the
    picture is divided by its own running mean norm, so that a share means the same whatever the loss's scale."""

    norms: dict[str, Tensor] = field(default_factory=dict)  # on the device: nothing here makes the host wait

    def __call__(self, picture: Tensor, main: Tensor, others: dict[str, tuple[float, Tensor]]) -> Tensor:
        """A loss whose gradient is that of `main`, and beside it of each (share, loss) at share times its norm."""
        (total,) = torch.autograd.grad(main, picture, retain_graph=True)
        norm = total.norm()
        for name, (share, loss) in others.items():
            (gradient,) = torch.autograd.grad(loss, picture, retain_graph=True)
            size = gradient.norm()
            self.norms[name] = NORM_DECAY * self.norms.get(name, size) + (1 - NORM_DECAY) * size
            total = total + gradient * (share * norm / self.norms[name].clamp_min(1e-12))
        surrogate = (picture * total.detach()).sum()
        return surrogate - surrogate.detach() + main.detach()  # the value that is logged is the main loss


@dataclass(frozen=True)
class Shares:
    """Of the pixels' gradient norm."""

    perceptual: float = 1.0
    features: float = 0.6
    adversarial: float = 0.6


class Appearance:
    """The loss of pictures (B, 3, H, W) against the true ones, with a discriminator that learns beside the network.

    perceptual: a distance that no measure uses, or None. warmup: steps in which the discriminator learns alone. apart: so many
    pictures on in the batch lies the true one that a picture is compared with by the discriminator; 0: its own.
    """

    def __init__(
        self,
        device: torch.device,
        precision: torch.dtype,
        perceptual: Perceptual | None = None,
        shares: Shares = Shares(),
        lr: float = 4e-4,
        warmup: int = 40,
        apart: int = 0,
    ):
        with device:  # a parametrised weight cannot be moved everywhere
            self.discriminator = Discriminator()
        self.optimizer = torch.optim.AdamW(self.discriminator.parameters(), lr, betas=(0.5, 0.9), weight_decay=0.0)
        self.precision, self.perceptual, self.shares, self.warmup, self.apart = precision, perceptual, shares, warmup, apart
        self.balance, self.steps = Balance(), 0

    def __call__(self, picture: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both (B, 3, H, W), 0 .. 1; the discriminator takes a step of its own. The loss, and what to log."""
        chance = random.Random(self.steps)  # by the step, so that a resumed run draws what it would have drawn
        flip = chance.random() < 0.5
        fake, real = (2 * (x.flip(-1) if flip else x) - 1 for x in (picture, truth))
        learned = self.learn(fake.detach(), real.roll(self.apart, 0))
        main, others = (picture - truth).abs().mean(), {}
        with self.mixed(picture):
            if self.steps > self.warmup:
                with torch.no_grad():
                    seen = self.discriminator(real)
                ours = self.discriminator(fake)
                others["features"] = self.shares.features, feature_distance(ours, seen)
                others["adversarial"] = self.shares.adversarial, relativistic_loss(elsewhere(seen, self.apart), ours)
            if self.perceptual is not None:
                others["perceptual"] = self.shares.perceptual, self.perceptual(*views(chance, fake, real)).mean()
        scalars = {"judge": learned} | {name: loss.detach() for name, (_, loss) in others.items()}
        return self.balance(picture, main, others), scalars

    def learn(self, fake: Tensor, real: Tensor) -> Tensor:
        """One step of the discriminator."""
        self.steps += 1
        with self.mixed(real):
            loss = relativistic_loss(self.discriminator(fake), self.discriminator(real))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def mixed(self, like: Tensor):
        return autocast(like.device, self.precision)

    # What a stopped run needs.

    def state_dict(self) -> dict:
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "norms": self.balance.norms,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.balance.norms, self.steps = dict(state["norms"]), state["steps"]


def elsewhere(seen: list[list[Tensor]], apart: int) -> list[list[Tensor]]:
    """What was seen of a batch, `apart` pictures on."""
    return [[layer.roll(apart, 0) for layer in scale] for scale in seen]


def views(chance: random.Random, *pictures: Tensor) -> Iterator[Tensor]:
    """The same random part of each, at the same random size."""
    height, width = pictures[0].shape[-2:]
    low, high = VIEW
    kept = 0.8 + 0.2 * chance.random()
    h, w = int(kept * height), int(kept * width)
    top, left = chance.randrange(height - h + 1), chance.randrange(width - w + 1)
    zoom = chance.uniform(low, high)
    for picture in pictures:
        part = picture[..., top : top + h, left : left + w]
        yield F.interpolate(part, size=(round(zoom * h), round(zoom * w)), mode="bilinear", antialias=True, align_corners=False)
