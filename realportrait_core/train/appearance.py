"""Adversarial and perceptual losses of decoded pictures: squared error alone leads to the mean of all pictures that fit, a blur.

A patch discriminator with feature matching (Wang et al. 2018, pix2pixHD) and, where its weights are given, a perceptual distance
on random crops at random sizes. The discriminator is relativistic (Jolicoeur-Martineau 2018): it compares a picture with a true
one. In a decoder every pixel has its place, so that is the true picture of the same frame: the two differ in detail only, and the
discriminator learns within tens of steps. In an animation the content may be displaced by a few pixels, so it is the true
picture of another clip; with the same frame's the discriminator would learn the displacement only. None of the terms is an
evaluation metric: those of realportrait_core.eval are part of no loss.
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
SCALES = 2  # of the discriminator's input: the picture, and half its size
VIEW = (0.55, 1.0)  # range of sizes at which the perceptual term compares a crop
NORM_DECAY = 0.95  # of the running means of the gradients' norms
DETAIL_GAIN = 6.0  # of the picture's high frequencies, three more channels of the discriminator's input
Perceptual = Callable[[Tensor, Tensor], Tensor]  # two (B, 3, H, W) in -1 .. 1 -> (B,) distances


class PatchDiscriminator(nn.Module):
    """(B, 3, H, W) in -1 .. 1 -> the features of every layer; the last one is a logit for each patch."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        channels = (6, *widths)
        layers = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(channels, widths)]
        layers += [nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.Conv2d(widths[-1], 1, 3, padding=1)]
        self.layers = nn.ModuleList(spectral_norm(layer) for layer in layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, features = torch.cat([x, DETAIL_GAIN * (x - blurred(x))], 1), []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return [*features, self.layers[-1](x)]


class Discriminator(nn.Module):
    """A patch discriminator for each scale."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, scales: int = SCALES):
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(widths) for _ in range(scales))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        return [scale(x if i == 0 else F.avg_pool2d(x, 2**i)) for i, scale in enumerate(self.scales)]


def blurred(x: Tensor) -> Tensor:
    """(B, C, H, W), twice a mean over 3x3."""
    for _ in range(2):
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return x


def relativistic_loss(worse: list[list[Tensor]], better: list[list[Tensor]]) -> Tensor:
    """Small where the logits of `better` exceed those of `worse`. `better` are the true pictures for the discriminator, and its own
    for the generator."""
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
    picture is divided by its own running mean norm, so that a share does not depend on the loss's scale."""

    norms: dict[str, Tensor] = field(default_factory=dict)  # on the device: the host never waits

    def __call__(self, picture: Tensor, main: Tensor, others: dict[str, tuple[float, Tensor]]) -> Tensor:
        """A loss with the gradient of `main`, plus that of each (share, loss) scaled to `share` times the norm of main's."""
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
    """The loss of pictures (B, 3, H, W) against the true ones, with a discriminator that is trained along with the network.

    perceptual: a distance that is no evaluation metric, or None. warmup: steps in which only the discriminator is trained. apart:
    the discriminator compares picture i with the true picture i - apart of the batch; 0: with its own.
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
        with device:  # torch cannot move a parametrised weight between all devices
            self.discriminator = Discriminator()
        self.optimizer = torch.optim.AdamW(self.discriminator.parameters(), lr, betas=(0.5, 0.9), weight_decay=0.0)
        self.precision, self.perceptual, self.shares, self.warmup, self.apart = precision, perceptual, shares, warmup, apart
        self.balance, self.steps = Balance(), 0

    def __call__(self, picture: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both (B, 3, H, W), 0 .. 1; the discriminator takes a step of its own. The loss, and what to log."""
        chance = random.Random(self.steps)  # by the step, so that a resumed run draws the same
        flip = chance.random() < 0.5
        fake, real = (2 * (x.flip(-1) if flip else x) - 1 for x in (picture, truth))
        learned = self.learn(fake.detach(), real.roll(self.apart, 0))
        main, others = (picture - truth).abs().mean(), {}
        with self.mixed(picture):
            if self.steps > self.warmup:
                with torch.no_grad():
                    of_real = self.discriminator(real)
                of_fake = self.discriminator(fake)
                others["features"] = self.shares.features, feature_distance(of_fake, of_real)
                others["adversarial"] = self.shares.adversarial, relativistic_loss(rolled(of_real, self.apart), of_fake)
            if self.perceptual is not None:
                others["perceptual"] = self.shares.perceptual, self.perceptual(*views(chance, fake, real)).mean()
        scalars = {"discriminator": learned} | {name: loss.detach() for name, (_, loss) in others.items()}
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

    # For the checkpoint of a run (checkpoint.Stateful)

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


def rolled(features: list[list[Tensor]], apart: int) -> list[list[Tensor]]:
    """The discriminator's features of a batch, rolled by `apart` pictures."""
    return [[layer.roll(apart, 0) for layer in scale] for scale in features]


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
