"""The five face points that crops are made from, computed from rendered surface points instead of a detector.

The weights are fitted to what YuNet finds in 750 frames of 150 rendered clips (ridge, large errors damped). On a third of them
that the fit did not see they lie 2.7 to 4.7 of 256 px from YuNet's; the portrait's crop, 260 px wide there, is 2 % smaller on
average, and its corners are off by 12 px, mostly YuNet's own jitter on rendered faces.
"""

import numpy as np

from .head_truth import SURFACE

# Image-left eye, image-right eye, nose, image-left and image-right corner of the mouth; each row sums to 1 over truth.SURFACE.
WEIGHTS = (
    (.08, .09, .02, .06, -.05, .03, .04, .06, -.05, .01, -.01, -.01, .06, .07, .13, .42, .05, .08, -.12, .04, -.09, .09),
    (.02, .07, -.01, .11, -.14, .06, .03, -.01, .05, -.01, -.01, .01, .07, .07, .26, .11, .37, -.05, .12, -.14, .10, -.09),
    (.19, .04, -.10, .08, .26, .05, .26, .06, -.17, .48, .38, .33, -.36, -.24, .27, .05, .02, .02, -.07, -.10, -.22, -.22),
    (.00, -.09, -.02, .02, .07, .06, .12, .23, .10, .05, .01, .09, .01, -.15, .06, .38, -.07, .04, -.01, .01, -.05, .15),
    (-.05, -.11, -.04, .11, .03, .07, .16, .06, .27, -.04, .03, .03, -.03, -.07, .15, .15, .09, -.06, .28, -.16, .08, .04),
)


def five_points(surface: np.ndarray) -> np.ndarray:
    """surface (T, 128, 2) px -> (T, 5, 2) px, in YuNet's order."""
    weights = np.array(WEIGHTS)
    return (weights / weights.sum(1, keepdims=True)) @ surface[:, list(SURFACE)]
