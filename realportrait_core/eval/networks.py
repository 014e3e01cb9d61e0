"""The networks of an evaluation."""

from dataclasses import dataclass

from ..diffusion.schedule import Schedule
from ..dit.model import RealPortraitDiT
from ..face.detect import FaceDetector
from ..vae import VAE
from ..vid2vid import FaceVid2Vid
from .judges.loading import Judges


@dataclass(frozen=True)
class Networks:
    """The networks under test, frozen and in eval mode, and those that judge their results."""

    vid2vid: FaceVid2Vid
    dit: RealPortraitDiT
    vae: VAE
    detector: FaceDetector
    schedule: Schedule
    judges: Judges = Judges()
