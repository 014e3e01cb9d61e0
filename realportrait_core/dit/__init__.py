from .cache import Caching, StepCache
from .embed import ClipShape
from .model import RealPortraitDiT, Reference

__all__ = ["Caching", "ClipShape", "RealPortraitDiT", "Reference", "StepCache"]
