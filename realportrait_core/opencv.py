"""OpenCV for evaluation, training and batches, imported where it is used; the nodes work without it."""

import sys
from types import ModuleType

from .errors import RealPortraitError

OLDEST = (4, 8)


def import_cv2() -> ModuleType:
    """The module cv2. Raises RealPortraitError, which says what to install, where there is none or one that is too old."""
    try:
        import cv2
    except (ImportError, AttributeError) as error:  # the second: one that was built for another numpy
        raise RealPortraitError(
            f"OpenCV cannot be imported ({error}). Install the package opencv-python-headless by `{sys.executable} -m pip`. "
            "If opencv-python is installed already, repair that one instead: never install both."
        ) from error
    version = getattr(cv2, "__version__", "unknown")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise RealPortraitError(
            f"OpenCV {version} is too old: at least {OLDEST[0]}.{OLDEST[1]} is needed. Bring whichever is installed up to date, "
            "opencv-python or opencv-python-headless."
        )
    return cv2
