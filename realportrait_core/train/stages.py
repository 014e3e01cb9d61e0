"""The stages of the DiT's training in numbers: what a step draws, how many steps, at what rate. STAGES[preset][name]."""

from dataclasses import dataclass

from ..config import ABLATIONS
from ..errors import InputError


@dataclass(frozen=True)
class Shape:
    """What one step draws: portraits, and for each of them clips that share its reference.

    frames == 1 makes the clips single frames, which images can give too; longer clips come from videos alone.
    """

    portraits: int
    clips: int = 1
    frames: int = 1
    stride: int = 1  # frames of the sample from one frame of the clip to the next
    noises: int = 1  # noises, each with its timesteps, for each clip; its motion and portrait are encoded once for all of them

    def __post_init__(self):
        if min(self.portraits, self.clips, self.frames, self.stride, self.noises) < 1:
            raise InputError(f"{self}: each must be at least 1.")

    @property
    def reach(self) -> int:
        """Frames that a sample must have."""
        return (self.frames - 1) * self.stride + 1


@dataclass(frozen=True)
class Stage:
    """Step i draws by shapes[i % len(shapes)]; portraits are those of all processes together."""

    shapes: tuple[Shape, ...]
    steps: int
    lr: float
    warmup: int  # steps
    average: float  # decay of the exponential moving average of the weights
    muon: bool = False  # Muon for matrices between features; else AdamW for everything
    # Terms of the loss that the paper does not have; 0 leaves them out.
    face: float = 0.0  # extra weight of a place inside the facial mask: 1 + face
    latent_regression: float = 0.0  # weight of latent_regression.latent_regression_loss
    error_reweighting: float = 0.0  # e: a frame's weight is e / (e + the error of its motion latent)
    unmoved: float = 0.0  # share of noises without the motion, for classifier-free guidance
    # Other objectives than the paper's.
    mapper_only: bool = False  # latent regression is the whole loss, and only the motion mapper learns
    distil: int = 0  # steps of a distilled student; 0: the network learns from the data
    appearance: bool = False  # that student learns from its own decoded pictures (student.py)


PAPER = {
    # "In the first stage, the batch size is 32, and in the second stage, the batch size is 4. The first stage is trained for 20K
    # steps, and the second stage is trained for 30K steps" (Training and inference). Rate and average are not stated.
    "frames": Stage((Shape(32),), steps=20_000, lr=1e-4, warmup=1000, average=0.9999),
    "clips": Stage((Shape(4, frames=16),), steps=30_000, lr=2e-5, warmup=500, average=0.9999),
    # Beyond the paper. Before stage 1, if wanted: the motion mapper only.
    "maps": Stage((Shape(32),), steps=2000, lr=1e-4, warmup=100, average=0.999, latent_regression=1.0, mapper_only=True),
    # Beyond the paper, with the weights of stage 2 as teacher and start: only 4 timesteps are left to learn.
    "distil": Stage((Shape(4, frames=16),), steps=5000, lr=1e-5, warmup=200, average=0.999, distil=4),
    "student": Stage((Shape(4, frames=16),), steps=5000, lr=1e-5, warmup=200, average=0.999, distil=4, appearance=True),
}

# Small networks on few cores: three driving frames share one reference, and in stage 2 clips in slow motion, of many
# identities, alternate with clips of 16 consecutive frames. A face is an eighth of the picture, and what a viewer looks at.
MINI = {
    "maps": Stage(
        (Shape(4, frames=5, stride=4),),
        steps=1500,
        lr=2e-3,
        warmup=30,
        average=0.99,
        muon=True,
        face=3.0,
        latent_regression=1.0,
        error_reweighting=0.03,
        mapper_only=True,
    ),
    "frames": Stage(
        (Shape(6, clips=3),), steps=3000, lr=1.5e-3, warmup=100, average=0.995, muon=True, face=3.0, latent_regression=1.0
    ),
    "clips": Stage(
        (Shape(4, frames=5, stride=4, noises=2), Shape(1, frames=16, noises=2)),
        steps=2500,
        lr=1.2e-3,
        warmup=30,
        average=0.995,
        muon=True,
        face=3.0,
        latent_regression=1.0,
        error_reweighting=0.03,
        unmoved=0.12,
    ),
    "distil": Stage(
        (Shape(4, frames=5, stride=4), Shape(1, frames=16)),
        steps=600,
        lr=3e-4,
        warmup=20,
        average=0.98,
        muon=True,
        face=3.0,
        distil=4,
    ),
    "student": Stage(
        (Shape(2, frames=5, stride=4), Shape(8), Shape(2, frames=5, stride=4), Shape(2, frames=7), Shape(8)),
        steps=1000,
        lr=2e-4,
        warmup=20,
        average=0.99,
        distil=4,
        appearance=True,
    ),
}
# The ablations: the paper's loss, in steps for minutes on few cores, the same for all of them.
PLAIN = {
    "frames": Stage((Shape(4, clips=3, noises=2),), steps=1500, lr=1.5e-3, warmup=30, average=0.99, muon=True),
    "clips": Stage(
        (Shape(2, frames=5, stride=4, noises=2), Shape(1, frames=16)), steps=400, lr=1e-3, warmup=20, average=0.99, muon=True
    ),
}
STAGES = {"paper": PAPER, "mini": MINI, **{name: PLAIN for name in ABLATIONS}}
