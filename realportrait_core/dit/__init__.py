from .embed import ClipShape
from .model import RealPortraitDiT, Reference

__all__ = ["ClipShape", "RealPortraitDiT", "Reference"]
