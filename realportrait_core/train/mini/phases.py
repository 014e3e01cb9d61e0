"""What a training on a GPU can do, phase by phase, each from the weights that are there: PHASES.

A phase is a function (State, minutes) that trains networks of the state in place. It leaves them frozen, in eval mode, with
averaged weights.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from ...config import Config
from ...diffusion.schedule import linear_schedule
from ...dit.model import RealPortraitDiT
from ...vae import DOWN, TinyVAE
from ...vid2vid import FaceVid2Vid
from ...vid2vid.keypoints import Pose
from ...vid2vid.motion import pose_from_raw
from ..appearance import Appearance
from ..average import recalibrate
from ..latent_regression import LatentRegression, motion_modules
from ..loop import LOWEST_RATE
from ..objective import Objective, loss_of
from ..precision import autocast
from ..stage import ADAM_ONLY
from ..stages import Shape
from ..student import Student
from .bank import Bank, leaning
from .draws import UNMOVED, decoder_pictures, dit_batch, motion_faces, photo_batch, photo_faces, renderer_faces, turned_faces
from .flat import Flat
from .gauge import Gauge
from .motion import Standardised, feature_weight, photos_among, storable, taught_terms, unfolded
from .photo_faces import turned_weight
from .turned import TurnedPhotos, read_again
from .vae import psnr
from .warp import PAINT_EVERY, Faces, Renderer, beside, fit_readout, painting_loss, warp_faces
from .writer import Writer

log = logging.getLogger(__name__)

ASK_EVERY = 50  # steps between looks at the scalars
# All go on from trained weights.
RATES = {"decoder": 3e-4, "motion": 3e-4, "renderer": 5e-4, "maps": 1e-3, "clips": 4e-4, "student": 2e-4}
WARMUPS = {"decoder": 50, "motion": 50, "renderer": 50, "maps": 50, "clips": 50, "student": 50}  # steps
AVERAGES = {"decoder": 0.995, "motion": 0.998, "renderer": 0.998, "maps": 0.99, "clips": 0.995, "student": 0.995}
FACE, READ, EVEN = 3.0, 1.0, 0.03  # see stages.Stage
RECALIBRATED = 8  # batches by which batch norms are set for averaged weights
PAIRS = 0.25  # of a step's pictures, but M's, are pairs of photographs, where there are any: a pair is two pictures
READOUT_BATCHES = 2  # by which the readout is fitted: of a GPU's size each
COMPILE_PAYS = 3.0  # minutes of a phase from which compiling the blocks should pay: some 40 s, for a third of the rest


@dataclass(frozen=True)
class Load:
    """What a step takes of an 80 GB card."""

    decoder: int = 96  # pictures
    side: int = 128  # px of them
    motion: int = 512  # faces, in pairs
    portraits: int = 48  # of F, W and G
    drivers: int = 4  # for each of them
    maps: Shape = Shape(64, frames=5, stride=4)
    clips: Shape = Shape(24, frames=16, draws=2)
    student: Shape = Shape(24, frames=8, stride=2)

    def halved(self) -> "Load":
        def half(count: int) -> int:
            return max(1, count // 2)

        return replace(
            self,
            decoder=half(self.decoder),
            motion=2 * half(self.motion // 2),
            portraits=half(self.portraits),
            maps=replace(self.maps, portraits=half(self.maps.portraits)),
            clips=replace(self.clips, portraits=half(self.clips.portraits)),
            student=replace(self.student, portraits=half(self.student.portraits)),
        )


@dataclass
class State:
    """What the phases read and change."""

    cfg: Config
    vid2vid: FaceVid2Vid
    vae: TinyVAE
    dit: RealPortraitDiT
    student: RealPortraitDiT  # for few steps
    bank: Bank
    held: Bank  # clips that nothing learns from
    device: torch.device
    precision: torch.dtype  # of W, G, the decoder and the DiT
    writer: Writer
    best: float  # gauge.product_speed
    load: Load = Load()
    share: float = 1.0  # of the way from M's poses to the rendered ones, in the DiT's batches
    compiled: bool = False  # compile the blocks, where it pays
    chance: random.Random = field(default_factory=random.Random)  # for what the host decides
    turned: TurnedPhotos | None = None  # None: there are no photographs

    @property
    def mixed(self) -> Callable:
        return partial(autocast, self.device, self.precision)


Loss = Callable[[int], tuple[torch.Tensor, dict[str, torch.Tensor]]]


@contextmanager
def learning(*networks: nn.Module) -> Iterator[None]:
    for network in networks:
        network.requires_grad_(True).train()
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(False).eval()


def nothing() -> None:
    pass


def train(
    state: State,
    name: str,
    network: nn.Module,
    loss: Loss,
    minutes: float,
    items: int,
    unit: str,
    adam_only: tuple[str, ...],
    compile_it: Callable[[], None] = nothing,
    settle: Callable[[], None] = nothing,
) -> None:
    """Trains what of `network` wants a gradient, for so many minutes, and leaves it averaged.

    loss(step) -> the loss and scalars to log, all on the device; it must not make the host wait. compile_it() is called after the
    first step, of which the operations are counted. settle() is called with averaged weights before they are written.
    """
    flat = Flat(network, adam_only, AVERAGES[name])
    gauge = Gauge(name, items, unit, state.device, state.best)
    began, step, counted = time.perf_counter(), 0, gauge.counting()

    def take(rate: float) -> None:
        value, scalars = loss(step)
        value.backward()
        gauge.add({"loss": value, **scalars, "norm": flat.step(rate)})

    while (gone := (time.perf_counter() - began) / (60 * minutes)) < 1:
        rate = RATES[name] * min(1.0, (step + 1) / WARMUPS[name]) * max(LOWEST_RATE, 1 - gone)
        if step:
            take(rate)
        else:
            with counted:
                take(rate)
            gauge.flops = counted.get_total_flops()
            compile_it()
        step += 1
        if step == 2:
            gauge.started()
        if step % ASK_EVERY == 1:
            gauge.ask()
        if gauge.due():
            gauge.say(60 * minutes * (1 - gone))
        if state.writer.due():
            with flat.averaged():
                settle()
                state.writer.write(state)
    with torch.no_grad():
        flat.weights.copy_(flat.average)
    settle()
    if gauge.sums:
        gauge.ask()
        gauge.say(0.0)
    if skipped := int(flat.skipped):
        log.warning("%s: %d of %d steps were skipped, their gradients were not finite", name, skipped, step)


# Phases


def decoder(state: State, minutes: float) -> None:
    """The VAE's decoder, on crops of frames and photographs, by what they look like; the latent space stays."""
    state.writer.changes("vae")
    with learning(state.vae.taesd_decoder):
        train(state, "decoder", state.vae.taesd_decoder, decoder_loss(state), minutes, state.load.decoder, "pictures", ("",))


def decoder_loss(state: State) -> Loss:
    side, appearance = min(state.load.side, state.bank.size), Appearance(state.device, state.precision)

    def loss(step: int):
        top, left = (DOWN * state.chance.randrange((state.bank.size - side) // DOWN + 1) for _ in range(2))
        pictures = decoder_pictures(state.bank, state.load.decoder, side, top, left).contiguous(memory_format=torch.channels_last)
        with state.mixed():
            with torch.no_grad():
                latents = state.vae.taesd_encoder(pictures)
            decoded = state.vae.taesd_decoder(latents)
        decoded = decoded.float()
        value, scalars = appearance(decoded, pictures)
        return value, scalars | {"db": psnr(decoded.detach().clamp(0, 1), pictures).mean()}

    return loss


def motion(state: State, minutes: float) -> None:
    """M, by the truth of the rendered heads, and where there are any by photographs turned."""
    state.writer.changes("vid2vid")
    model = motion_of(state)
    loss = motion_loss(state, model)

    def settle() -> None:
        recalibrate(model, loss, RECALIBRATED)
        pictures = motion_draw(state)[0]
        state.vid2vid.motion = storable(model.folded(), pictures).requires_grad_(False)
        model.train()

    with learning(model):
        train(state, "motion", model, loss, minutes, state.load.motion, "faces", ("model.detector.fc_",), settle=settle)


def motion_of(state: State) -> Standardised:
    """The state's M as it learns on."""
    with torch.no_grad():
        return unfolded(state.vid2vid.motion, motion_draw(state)[0])


def motion_draw(state: State) -> tuple[torch.Tensor, Pose, tuple[torch.Tensor, torch.Tensor] | None]:
    """Pictures, the rendered ones first, and their truth; of the photographs, which follow, what turned_terms takes."""
    size, count = state.cfg.vid2vid.crop_size, state.load.motion
    if state.turned is None:
        return *motion_faces(state.bank, count, size), None
    of_photos = photos_among(count)
    pictures, truth = motion_faces(state.bank, count - of_photos, size)
    faces, places, turned = turned_faces(state.turned, of_photos, size)
    return torch.cat([pictures, faces]), truth, (places, turned)


def motion_loss(state: State, model: Standardised) -> Loss:
    weight = feature_weight(state.cfg.vid2vid.num_kp, state.device)
    photo_weight = turned_weight(weight)

    def loss(step: int):
        pictures, truth, of_photos = motion_draw(state)
        return taught_terms(pose_from_raw(model.raw(pictures)), truth, of_photos, weight, photo_weight)

    return loss


def renderer(state: State, minutes: float) -> None:
    """F, W and G together."""
    state.writer.changes("vid2vid")
    model = renderer_of(state)
    draw = renderer_draws(state)
    loss = renderer_loss(state, model, draw)
    with learning(model):
        with torch.no_grad():
            drawn = [draw() for _ in range(READOUT_BATCHES)]
            fit_readout(model.readout, [(warp_faces(model, faces, state.mixed)[0], faces) for faces in drawn])
            del drawn

        def settle() -> None:
            recalibrate(model, loss, RECALIBRATED)
            model.train()

        train(
            state, "renderer", model, loss, minutes, frames_of(state, renderer_shape(state)), "faces", ("readout",), settle=settle
        )


def renderer_of(state: State) -> Renderer:
    """The state's own F, W and G, with a readout."""
    with state.device:
        model = Renderer(state.cfg.vid2vid)
    for name in ("appearance", "warping", "generator"):
        setattr(model, name, getattr(state.vid2vid, name))
    return model


def renderer_shape(state: State) -> Shape:
    """Driving faces as frames."""
    return Shape(state.load.portraits, frames=state.load.drivers)


def renderer_draws(state: State) -> Callable[[], Faces]:
    """Draws the faces of a step, those of photographs last."""
    cfg, photos = state.cfg.vid2vid, photos_of(state)
    size = 4 * cfg.feature_size * cfg.upscale  # px, side of G's picture
    shape, pairs = with_photos(state, renderer_shape(state))

    def draw() -> Faces:
        faces = renderer_faces(state.bank, shape.portraits, shape.frames, cfg.crop_size, size)
        return faces if photos is None else beside(faces, photo_faces(photos, pairs, cfg.crop_size, size))

    return draw


def renderer_loss(state: State, model: Renderer, draw: Callable[[], Faces]) -> Loss:
    def loss(step: int):
        faces = draw()
        warped, flow = warp_faces(model, faces, state.mixed)
        return painting_loss(model, faces, warped, flow, step % PAINT_EVERY == 0, state.mixed)

    return loss


def maps(state: State, minutes: float) -> None:
    """The motion mapper and the draft by themselves."""
    state.writer.changes("dit")
    with learning(*motion_modules(state.dit)):
        train(state, "maps", state.dit, maps_loss(state), minutes, frames_of(state, state.load.maps), "frames", ADAM_ONLY)


def maps_loss(state: State) -> Loss:
    objective = LatentRegression(state.dit, 1, state.precision, FACE, EVEN)
    return batch_loss(state, objective, state.load.maps, 1)


def clips(state: State, minutes: float) -> None:
    """The whole network, on clips of L frames."""
    state.writer.changes("dit")

    def compile_blocks() -> None:
        if not state.compiled or minutes < COMPILE_PAYS:
            return
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
        for block in (*state.dit.blocks, *(control.copied_block for control in state.dit.controlnet)):
            block.compile()

    with learning(state.dit):
        frames = frames_of(state, state.load.clips)
        train(state, "clips", state.dit, clips_loss(state), minutes, frames, "frames", ADAM_ONLY, compile_it=compile_blocks)


def clips_loss(state: State) -> Loss:
    schedule = linear_schedule().to(state.device)
    objective = Objective(state.dit, schedule, state.precision, FACE, READ, EVEN)
    return batch_loss(state, objective, state.load.clips, len(schedule))


def student(state: State, minutes: float) -> None:
    """The network for few steps, by what its pictures look like. After `clips` it starts from that phase's result."""
    if "dit" in state.writer.changed:
        state.student.load_state_dict(state.dit.state_dict())
    state.writer.changes("student")
    with learning(state.student):
        frames = frames_of(state, state.load.student)
        train(state, "student", state.student, student_loss(state), minutes, frames, "frames", ("",))


def student_loss(state: State) -> Loss:
    schedule = linear_schedule().to(state.device)
    appearance = Appearance(state.device, state.precision, lr=2e-4, apart=2)  # two crops a clip
    objective = Student(state.student, state.vae, schedule, state.precision, appearance)
    return batch_loss(state, objective, state.load.student, len(schedule), unmoved=0.0, pictures=True)


def batch_loss(
    state: State, objective: nn.Module, shape: Shape, timesteps: int, unmoved: float = UNMOVED, pictures: bool = False
) -> Loss:
    """The loss of `objective` on batches of the bank, and where there are photographs on pairs of them too; what it logs beside it
    is in its `scalars`."""
    vid2vid, bank = state.vid2vid, leaning(state.bank, state.vid2vid.motion, state.share)
    photos = photos_of(state)
    shape, pairs = with_photos(state, shape)

    def loss(step: int):
        batch = dit_batch(bank, vid2vid.appearance, shape, timesteps, unmoved, pictures)
        value = loss_of(objective, vid2vid.warping, batch, state.precision)
        scalars = getattr(objective, "scalars", {})
        if photos is None:
            return value, scalars
        batch = photo_batch(photos, vid2vid.appearance, pairs, shape.draws, timesteps, unmoved, pictures)
        with torch.compiler.set_stance("force_eager"):  # single frames would be compiled anew
            of_photos = loss_of(objective, vid2vid.warping, batch, state.precision)
        return torch.lerp(value, of_photos, PAIRS), scalars | {"photos": of_photos.detach()}

    return loss


def photos_of(state: State) -> TurnedPhotos | None:
    """Turned photographs, as M reads them now."""
    return None if state.turned is None else read_again(state.turned, state.vid2vid.motion)


def with_photos(state: State, shape: Shape) -> tuple[Shape, int]:
    """What a step draws of the bank, and how many pairs of photographs beside it: together no more pictures than `shape` has."""
    if state.turned is None:
        return shape, 0
    given = round(PAIRS * shape.portraits)
    return replace(shape, portraits=max(1, shape.portraits - given)), max(1, given * shape.clips * shape.frames // 2)


def frames_of(state: State, shape: Shape) -> int:
    """Pictures that a step makes."""
    shape, pairs = with_photos(state, shape)
    return (shape.portraits * shape.clips * shape.frames + pairs) * shape.draws


# In the order in which they are run. A phase that joins them also needs its part of the minutes, gpu.SHARES.
PHASES: dict[str, Callable[[State, float], None]] = {
    "decoder": decoder,
    "motion": motion,
    "renderer": renderer,
    "maps": maps,
    "clips": clips,
    "student": student,
}
