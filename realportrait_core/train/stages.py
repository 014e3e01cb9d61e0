"""The paper's two stages as numbers: what a step draws, how many steps, at what rate."""

from dataclasses import dataclass

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
    draws: int = 1  # noises and timesteps for each clip; its motion and portrait are read once for all of them

    def __post_init__(self):
        if min(self.portraits, self.clips, self.frames, self.stride, self.draws) < 1:
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
    face: float = 0.0  # what a place inside the facial mask weighs in the loss, beyond 1
    read: float = 0.0  # weight of the error with which the motion latent's first channels say the frame's latent
    even: float = 0.0  # a frame weighs this / (this + the error of its reading); 0: all the same
    alone: bool = False  # that error is all there is: the motion mapper learns by itself
    unmoved: float = 0.0  # share of draws without the motion: what guidance leads away from
    appearance: bool = False  # a student of `distil` steps learns from its own decoded pictures (student.py)
    distil: int = 0  # steps that a student learns to make do with; 0: the network learns from the data


# "In the first stage, the batch size is 32, and in the second stage, the batch size is 4. The first stage is trained for 20K
# steps, and the second stage is trained for 30K steps" (Training and inference). Rate and average are not stated.
PAPER_FRAMES = Stage((Shape(32),), steps=20_000, lr=1e-4, warmup=1000, average=0.9999)
PAPER_CLIPS = Stage((Shape(4, frames=16),), steps=30_000, lr=2e-5, warmup=500, average=0.9999)

# Small networks on few cores: three driving frames pay for one reference, and in stage 2 clips in slow motion, of many
# identities, alternate with clips of 16 consecutive frames. A face is an eighth of the picture and all that is looked at.
MINI_FRAMES = Stage((Shape(6, clips=3),), steps=3000, lr=1.5e-3, warmup=100, average=0.995, muon=True, face=3.0, read=1.0)
MINI_CLIPS = Stage(
    (Shape(4, frames=5, stride=4, draws=2), Shape(1, frames=16, draws=2)),
    steps=2500,
    lr=1.2e-3,
    warmup=30,
    average=0.995,
    muon=True,
    face=3.0,
    read=1.0,
    even=0.03,
    unmoved=0.12,
)
# Before stage 1, if wanted. Convolutions learn what a warped feature shows far sooner than attention does, and without the
# backbone a step takes a fraction of the time.
PAPER_MAPS = Stage((Shape(32),), steps=2000, lr=1e-4, warmup=100, average=0.999, read=1.0, alone=True)
MINI_MAPS = Stage(
    (Shape(4, frames=5, stride=4),),
    steps=1500,
    lr=2e-3,
    warmup=30,
    average=0.99,
    muon=True,
    face=3.0,
    read=1.0,
    even=0.03,
    alone=True,
)
# Beyond the paper, from the weights of stage 2 as teacher and start. Only 4 timesteps are left to learn.
PAPER_DISTIL = Stage((Shape(4, frames=16),), steps=5000, lr=1e-5, warmup=200, average=0.999, distil=4)
MINI_DISTIL = Stage(
    (Shape(4, frames=5, stride=4), Shape(1, frames=16)), steps=600, lr=3e-4, warmup=20, average=0.98, muon=True, face=3.0, distil=4
)
# Beyond the paper too: few steps again, judged by what they look like.
PAPER_STUDENT = Stage((Shape(4, frames=16),), steps=5000, lr=1e-5, warmup=200, average=0.999, distil=4, appearance=True)
MINI_STUDENT = Stage(
    (Shape(2, frames=5, stride=4), Shape(8), Shape(2, frames=5, stride=4), Shape(2, frames=7), Shape(8)),
    steps=1000,
    lr=2e-4,
    warmup=20,
    average=0.99,
    distil=4,
    appearance=True,
)
STAGES = {
    "paper": (PAPER_FRAMES, PAPER_CLIPS, PAPER_DISTIL, PAPER_MAPS, PAPER_STUDENT),
    "mini": (MINI_FRAMES, MINI_CLIPS, MINI_DISTIL, MINI_MAPS, MINI_STUDENT),
}
