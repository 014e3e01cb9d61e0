"""The phases of a training on a GPU: PHASES. Each continues from the weights of the state.

A phase is a function (State, minutes) that trains networks of the state in place and leaves them frozen, in eval mode, with
averaged weights.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from ...diffusion.schedule import linear_schedule
from ...vae import DOWN
from ...vid2vid.keypoints import Pose
from ...vid2vid.motion import pose_from_raw
from ..appearance import Appearance
from ..average import recalibrate
from ..latent_regression import LatentRegression, motion_modules
from ..objective import Objective, loss_of
from ..stage import ADAM_ONLY
from ..stages import Shape
from ..student import Student
from .gpu_batches import UNMOVED, decoder_pictures, dit_batch, motion_faces, photo_batch, photo_faces, renderer_faces, turned_faces
from .gpu_loop import Loss, train, trainable
from .gpu_state import State
from .motion import Standardised, feature_weight, heads_and_photos_loss, photos_among, storable, unfolded
from .photo_supervision import weight_by_residual
from .poses import with_blended_poses
from .renderer import PAINT_EVERY, Faces, Renderer, concatenated, fit_readout, painting_loss, warp_faces
from .turned_photos import TurnedPhotos, with_poses_of
from .vae import psnr

log = logging.getLogger(__name__)

FACE_WEIGHT, LATENT_REGRESSION, ERROR_REWEIGHTING = 3.0, 1.0, 0.03  # see stages.Stage
RECALIBRATION_BATCHES = 8  # for the batch norms' statistics with averaged weights
PAIRS = 0.25  # share of a step's pictures (except M's) in pairs of photographs, if there are any: a pair is two pictures
READOUT_BATCHES = 2  # to which the readout is fitted
COMPILE_FROM = 3.0  # minutes of a phase from which compiling pays: it takes about 40 s and saves about a third of a step


# Phases


def decoder(state: State, minutes: float) -> None:
    """The VAE's decoder, on crops of frames and photographs, with a perceptual loss; the latent space stays."""
    state.writer.changes("vae")
    with trainable(state.vae.taesd_decoder):
        train(state, "decoder", state.vae.taesd_decoder, decoder_loss(state), minutes, state.load.decoder, "pictures", ("",))


def decoder_loss(state: State) -> Loss:
    side, appearance = min(state.load.side, state.data.size), Appearance(state.device, state.precision)

    def loss(step: int):
        top, left = (DOWN * state.chance.randrange((state.data.size - side) // DOWN + 1) for _ in range(2))
        pictures = decoder_pictures(state.data, state.load.decoder, side, top, left).contiguous(memory_format=torch.channels_last)
        with state.mixed():
            with torch.no_grad():
                latents = state.vae.taesd_encoder(pictures)
            decoded = state.vae.taesd_decoder(latents)
        decoded = decoded.float()
        value, scalars = appearance(decoded, pictures)
        return value, scalars | {"db": psnr(decoded.detach().clamp(0, 1), pictures).mean()}

    return loss


def motion(state: State, minutes: float) -> None:
    """M, supervised by the ground truth of rendered heads and, if there are any, by turned photographs."""
    state.writer.changes("vid2vid")
    model = motion_of(state)
    loss = motion_loss(state, model)

    def before_writing() -> None:
        recalibrate(model, loss, RECALIBRATION_BATCHES)
        pictures = motion_draw(state)[0]
        state.vid2vid.motion = storable(model.folded(), pictures).requires_grad_(False)
        model.train()

    with trainable(model):
        train(
            state,
            "motion",
            model,
            loss,
            minutes,
            state.load.motion,
            "faces",
            ("model.detector.fc_",),
            before_writing=before_writing,
        )


def motion_of(state: State) -> Standardised:
    """The state's M in the form in which it is trained."""
    with torch.no_grad():
        return unfolded(state.vid2vid.motion, motion_draw(state)[0])


def motion_draw(state: State) -> tuple[torch.Tensor, Pose, tuple[torch.Tensor, torch.Tensor] | None]:
    """Pictures, the rendered ones first, and their true poses; the targets of photos_loss for the photographs, which follow."""
    size, count = state.cfg.vid2vid.crop_size, state.load.motion
    if state.turned is None:
        return *motion_faces(state.data, count, size), None
    of_photos = photos_among(count)
    pictures, truth = motion_faces(state.data, count - of_photos, size)
    faces, places, turned = turned_faces(state.turned, of_photos, size)
    return torch.cat([pictures, faces]), truth, (places, turned)


def motion_loss(state: State, model: Standardised) -> Loss:
    weight = feature_weight(state.cfg.vid2vid.num_kp, state.device)
    photo_weight = weight_by_residual(weight)

    def loss(step: int):
        pictures, truth, of_photos = motion_draw(state)
        return heads_and_photos_loss(pose_from_raw(model.raw(pictures)), truth, of_photos, weight, photo_weight)

    return loss


def renderer(state: State, minutes: float) -> None:
    """F, W and G together."""
    state.writer.changes("vid2vid")
    model = renderer_of(state)
    draw = renderer_draws(state)
    loss = renderer_loss(state, model, draw)
    with trainable(model):
        with torch.no_grad():
            drawn = [draw() for _ in range(READOUT_BATCHES)]
            fit_readout(model.readout, [(warp_faces(model, faces, state.mixed)[0], faces) for faces in drawn])
            del drawn

        def before_writing() -> None:
            recalibrate(model, loss, RECALIBRATION_BATCHES)
            model.train()

        train(
            state,
            "renderer",
            model,
            loss,
            minutes,
            frames_of(state, renderer_shape(state)),
            "faces",
            ("readout",),
            before_writing=before_writing,
        )


def renderer_of(state: State) -> Renderer:
    """The state's F, W and G, with a readout."""
    with state.device:
        model = Renderer(state.cfg.vid2vid)
    for name in ("appearance", "warping", "generator"):
        setattr(model, name, getattr(state.vid2vid, name))
    return model


def renderer_shape(state: State) -> Shape:
    """A step's portraits with their driving faces, as a Shape."""
    return Shape(state.load.portraits, frames=state.load.drivers)


def renderer_draws(state: State) -> Callable[[], Faces]:
    """A function that draws the faces of a step, those of photographs last."""
    cfg, photos = state.cfg.vid2vid, photos_of(state)
    size = 4 * cfg.feature_size * cfg.upscale  # px, side of G's picture
    shape, pairs = with_photos(state, renderer_shape(state))

    def draw() -> Faces:
        faces = renderer_faces(state.data, shape.portraits, shape.frames, cfg.crop_size, size)
        return faces if photos is None else concatenated(faces, photo_faces(photos, pairs, cfg.crop_size, size))

    return draw


def renderer_loss(state: State, model: Renderer, draw: Callable[[], Faces]) -> Loss:
    def loss(step: int):
        faces = draw()
        warped, flow = warp_faces(model, faces, state.mixed)
        return painting_loss(model, faces, warped, flow, step % PAINT_EVERY == 0, state.mixed)

    return loss


def maps(state: State, minutes: float) -> None:
    """The motion mapper and the draft alone."""
    state.writer.changes("dit")
    with trainable(*motion_modules(state.dit)):
        train(state, "maps", state.dit, maps_loss(state), minutes, frames_of(state, state.load.maps), "frames", ADAM_ONLY)


def maps_loss(state: State) -> Loss:
    reading = LatentRegression(state.dit, 1, state.precision, FACE_WEIGHT, ERROR_REWEIGHTING)
    return batch_loss(state, reading, state.load.maps, 1)


def clips(state: State, minutes: float) -> None:
    """The whole network, on clips of L frames."""
    state.writer.changes("dit")

    def compile_blocks() -> None:
        if not state.compiled or minutes < COMPILE_FROM:
            return
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs eagerly
        for block in (*state.dit.blocks, *(control.copied_block for control in state.dit.controlnet)):
            block.compile()

    with trainable(state.dit):
        frames = frames_of(state, state.load.clips)
        train(state, "clips", state.dit, clips_loss(state), minutes, frames, "frames", ADAM_ONLY, after_first_step=compile_blocks)


def clips_loss(state: State) -> Loss:
    schedule = linear_schedule().to(state.device)
    objective = Objective(state.dit, schedule, state.precision, FACE_WEIGHT, LATENT_REGRESSION, ERROR_REWEIGHTING)
    return batch_loss(state, objective, state.load.clips, len(schedule))


def student(state: State, minutes: float) -> None:
    """The few-step network, with a perceptual loss on its pictures. After `clips` it starts from that phase's result."""
    if "dit" in state.writer.changed:
        state.student.load_state_dict(state.dit.state_dict())
    state.writer.changes("student")
    with trainable(state.student):
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
    """The loss of `objective` on batches of the data and, if there are any, on pairs of photographs. What else the objective logs
    is in its `scalars`."""
    vid2vid, data = state.vid2vid, with_blended_poses(state.data, state.vid2vid.motion, state.pose_blend)
    photos = photos_of(state)
    shape, pairs = with_photos(state, shape)

    def loss(step: int):
        batch = dit_batch(data, vid2vid.appearance, shape, timesteps, unmoved, pictures)
        value = loss_of(objective, vid2vid.warping, batch, state.precision)
        scalars = getattr(objective, "scalars", {})
        if photos is None:
            return value, scalars
        batch = photo_batch(photos, vid2vid.appearance, pairs, shape.noises, timesteps, unmoved, pictures)
        with torch.compiler.set_stance("force_eager"):  # single frames would be compiled anew
            of_photos = loss_of(objective, vid2vid.warping, batch, state.precision)
        return torch.lerp(value, of_photos, PAIRS), scalars | {"photos": of_photos.detach()}

    return loss


def photos_of(state: State) -> TurnedPhotos | None:
    """Turned photographs, with the poses that the current M extracts."""
    return None if state.turned is None else with_poses_of(state.turned, state.vid2vid.motion)


def with_photos(state: State, shape: Shape) -> tuple[Shape, int]:
    """Shape of a step's rendered clips, and number of its pairs of photographs: together no more pictures than `shape` has."""
    if state.turned is None:
        return shape, 0
    given = round(PAIRS * shape.portraits)
    return replace(shape, portraits=max(1, shape.portraits - given)), max(1, given * shape.clips * shape.frames // 2)


def frames_of(state: State, shape: Shape) -> int:
    """Number of pictures of a step."""
    shape, pairs = with_photos(state, shape)
    return (shape.portraits * shape.clips * shape.frames + pairs) * shape.noises


# In the order in which they are run. Each also has a share of the minutes: gpu.SHARES.
PHASES: dict[str, Callable[[State, float], None]] = {
    "decoder": decoder,
    "motion": motion,
    "renderer": renderer,
    "maps": maps,
    "clips": clips,
    "student": student,
}
