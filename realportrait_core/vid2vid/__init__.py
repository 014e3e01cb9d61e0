"""Face Vid2vid (Wang, Mallya, Liu 2021) in the form that LivePortrait publishes: F, M, W and G."""

from torch import nn

from ..config import Vid2VidConfig
from .appearance import AppearanceExtractor
from .generator import Generator
from .motion import MotionExtractor
from .warp import WarpingNetwork


class FaceVid2Vid(nn.Module):
    """The four networks of one set of weights: f_r = F(portrait), pose = M(face), f_{r->d} = W(f_r, x_d, x_s), G(f_{r->d}).

    RealPortrait uses f_{r->d} and needs no G; `eval` compares with G's picture.
    """

    def __init__(self, cfg: Vid2VidConfig, with_generator: bool = True):
        super().__init__()
        self.cfg = cfg
        self.appearance = AppearanceExtractor(cfg)
        self.motion = MotionExtractor(cfg)
        self.warping = WarpingNetwork(cfg)
        self.generator = Generator(cfg) if with_generator else None
