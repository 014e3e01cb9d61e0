from .cache import Caching, StepCache, with_cache
from .embed import ClipShape
from .model import RealPortraitDiT, Reference

__all__ = ["Caching", "ClipShape", "RealPortraitDiT", "Reference", "StepCache", "with_cache"]
